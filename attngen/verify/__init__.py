"""Verification: generated kernels against the float64 reference, on this GPU or in Triton's interpreter.

cases        at which sizes
variants     which configs: the one in use, and one of each structure
baseline     what plain PyTorch in the same dtype computes, which sets how large an error may be
bounds       what rounding alone can do to a result
answers      what the reference says of the kernels that select keys
gradients    what the kernels of a backward pass are given, and how near to the reference each must come
comparisons  for each kernel its inputs at one size, and what makes of its result a finding
judge        attention's result against the right answer
finding      what came of one kernel at one size
kernels      which kernels are verified
kinds        verify_kinds: all of that for the kinds of a spec
rounding     what the interpreter rounds wrongly, put right
interpreted  verify_interpreted: the same in a child process whose Triton interprets
"""
