"""Run in a child process with TRITON_INTERPRET=1: each op of a generated package against the reference.

Takes the package's folder and a spec; prints, for each kind and case, the relative L2 error of out and the largest
error of lse as JSON.
"""

import importlib
import json
import math
import sys
from pathlib import Path

import torch

from attngen import reference
from attngen.inputs import make_inputs
from attngen.spec import load_spec
from attngen.verify.rounding import repair_interpreter


def errors(out, lse, exact_out, exact_lse):
    unseen = exact_lse == -math.inf
    assert torch.equal(lse == -math.inf, unseen), "lse of queries without keys"
    return {
        "out": float((out - exact_out).norm() / exact_out.norm()),
        "lse": float((lse - exact_lse).masked_fill(unseen, 0).abs().max()),
        "largest": float(exact_lse.masked_fill(unseen, 0).abs().max()),
    }


def cases(kind):
    """Inputs and keywords: ragged lengths, a strided layout, then padding and shifted queries."""
    yield "ragged", make_inputs(kind, 1, 19, 45, device="cpu", seed=1), {}
    inputs = make_inputs(kind, 2, 33, 33, device="cpu", seed=2)
    for name in "qkv":
        inputs[name] = inputs[name].transpose(1, 2).contiguous().transpose(1, 2)
    yield "transposed", inputs, {}
    inputs = make_inputs(kind, 2, 17, 40, device="cpu", seed=3)
    shifted = {
        "offsets": torch.tensor([5, 23], dtype=torch.int32),
        "key_range": torch.tensor([[0, 31], [4, 40]], dtype=torch.int32),
    }
    yield "padded", inputs, shifted


def main(folder, spec):
    folder, spec = Path(folder), load_spec(spec)
    sys.path.insert(0, str(folder.parent))
    repair_interpreter()
    package = importlib.import_module(folder.name)
    assert len(package.LAYERS) == spec.layers
    report = {}
    for kind in spec.kinds:
        layer = spec.layer_kinds.index(kind.name)
        for name, inputs, keywords in cases(kind):
            out, lse = package.attention(**inputs, **keywords, layer=layer, return_lse=True)
            exact = reference.attention(kind, **inputs, **keywords)
            assert out.dtype == getattr(torch, kind.out_dtype)
            assert (out.stride(1) < out.stride(2)) == (inputs["q"].stride(1) < inputs["q"].stride(2)), "layout of q"
            report[f"{kind.name} {name}"] = errors(out, lse, *exact)
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
