"""Functions of other libraries, by attngen's kernels: the same names, arguments and results.

flash_mla  flash_mla_sparse_fwd of FlashMLA
"""
