"""Functions of other libraries, by attngen's kernels: the same names, arguments and results.

deep_gemm  fp8_mqa_logits of DeepGEMM
flash_mla  flash_mla_sparse_fwd of FlashMLA
"""
