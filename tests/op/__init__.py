"""Tests of the op: kernels in Triton's interpreter, calls, and launches on a GPU."""
