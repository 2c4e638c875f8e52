"""Run in a child process with TRITON_INTERPRET=1: the ops of a generated package that select blocks, and those in
branches.

Takes the package's folder and a spec; prints, for each such kind and case, the relative L2 error of out and the largest
error of lse as JSON. What a selection takes must be what attngen's reference takes.
"""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

import attngen
from attngen import reference
from attngen.inputs import make_inputs
from attngen.inputs_sparse import make_blocks
from attngen.op.block_forward import keys_of_valid
from attngen.spec import load_spec
from attngen.verify.rounding import repair_interpreter
from tests.package.interpreted import errors


def tensor(values):
    return torch.tensor(values, dtype=torch.int32)


# Sizes, and where queries and valid keys are: of a selection, and of sequences of which a list is of all blocks.
CASES = {
    "selected": ((2, 2, 75), {"key_range": tensor([[3, 75], [0, 30]]), "offsets": tensor([70, 38])}),
    "whole": ((1, 2, 21), {"key_range": tensor([[2, 18]])}),
}


def selecting(report, kind, module, attn):
    """A kind that selects blocks by the means of their keys."""
    op = getattr(module, kind.name)
    size = kind.select.blocks.size
    lists = make_blocks(kind, 1, 40, 60, device="cpu", seed=1) if kind.name == "shared" else {}
    if lists:  # more queries than the smallest part has
        blocks = lists.pop("blocks")
        blocks[:, :, ::3, 0] = 99  # of 60 keys, no block
        exact = reference.attention(kind, **lists, indices=keys_of_valid(blocks, size, 60))
        for name, given in (("lists", {}), ("parts", {"workspace_bytes": 1})):
            report[f"{kind.name} {name}"] = errors(*op(**lists, blocks=blocks, return_lse=True, **given), *exact)
    for name, (sizes, placed) in CASES.items():
        inputs, listed = make_inputs(dense(kind), *sizes, device="cpu", seed=2), {}
        if name == "selected":
            chosen = getattr(attn, kind.name).select(inputs["q"], inputs["k"], **placed)
            assert torch.equal(module.select(inputs["q"], inputs["k"], **placed), chosen), f"blocks of {kind.name}"
            listed["indices"] = keys_of_valid(chosen, size, sizes[2])
        exact = reference.attention(kind, **inputs, **placed, **listed)
        report[f"{kind.name} {name}"] = errors(*op(**inputs, **placed, return_lse=True), *exact)


def branched(report, kind, package, attn):
    """A kind in branches: against attngen's own sum of what the reference gives."""
    for name, (sizes, placed) in CASES.items():
        inputs = make_inputs(dense(kind), *sizes, device="cpu", seed=3)
        generator = torch.Generator().manual_seed(4)
        gates = torch.rand(*inputs["q"].shape[:3], len(kind.branches), generator=generator)
        given = inputs | placed | {"gates": gates, "near_sink": torch.randn(kind.heads.query, generator=generator)}
        if name == "whole":
            given |= {"near_k": inputs["k"] * 2, "near_v": inputs["v"] - 1}
        out = package.attention(**given, layer=layer(attn, kind))
        exact = attn(**given, layer=layer(attn, kind)).double()
        report[f"{kind.name} {name}"] = {"out": float((out - exact).norm() / exact.norm()), "lse": 0, "largest": 0}


def layer(attn, kind):
    return attn.spec.layer_kinds.index(kind.name)


def dense(kind):
    """The kind whose tensors are alike."""
    return replace(kind, select=None, branches=())


def main(folder, spec):
    folder, spec = Path(folder), load_spec(spec)
    sys.path.insert(0, str(folder.parent))
    repair_interpreter()
    package, attn = importlib.import_module(folder.name), attngen.load(spec)
    report = {}
    for kind in spec.kinds:
        if kind.select is not None:
            selecting(report, kind, importlib.import_module(f"{folder.name}.{kind.name}"), attn)
        elif kind.branches:
            branched(report, kind, package, attn)
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
