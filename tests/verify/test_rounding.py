"""The interpreter rounds as PyTorch does once it is repaired, and did not before."""

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

from attngen.verify.rounding import repair_interpreter


@pytest.mark.parametrize(
    ("dtype", "torch_dtype", "bits"),
    [(tl.float8e4nv, torch.float8_e4m3fn, torch.uint8), (tl.bfloat16, torch.bfloat16, torch.uint16)],
    ids=str,
)
def test_rounding(monkeypatch, dtype, torch_dtype, bits):
    values = torch.exp2(torch.linspace(-14, 8, 5000)).reshape(50, 100)
    values[::2] *= -1
    expected = values.to(torch_dtype)
    before = interpreter._convert_float
    monkeypatch.setattr(interpreter, "_convert_float", before)  # as it was, once this test is over
    repair_interpreter.__wrapped__()

    def right(convert):
        made = convert(values.numpy(), tl.float32, dtype, None)
        return torch.equal(torch.from_numpy(np.ascontiguousarray(made)).view(bits), expected.view(bits))

    assert right(interpreter._convert_float) and not right(before)
    half = interpreter._convert_float(values.numpy(), tl.float32, tl.float16, None)
    assert np.array_equal(half, before(values.numpy(), tl.float32, tl.float16, None))
