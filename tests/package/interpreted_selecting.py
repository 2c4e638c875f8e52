"""Run in a child process with TRITON_INTERPRET=1: the ops of a generated package that select keys.

Takes the package's folder and a spec; prints, for each such kind and case, the relative L2 error of out and the largest
error of lse as JSON. What a selection takes must be what attngen's reference takes.
"""

import importlib
import json
import sys
from pathlib import Path

import torch

from attngen import reference
from attngen.inputs_sparse import make_index, make_indices
from attngen.op import Selector
from attngen.spec import load_spec
from attngen.verify.rounding import repair_interpreter
from tests.package.interpreted import errors


def tensor(values):
    return torch.tensor(values, dtype=torch.int32)


def cases(top_k):
    """Sizes, and where queries and valid keys are: of a selection, and of sequences that fit a list."""
    yield "selected", (2, 1, top_k + 25), {"key_range": tensor([[2, 40], [0, 9]])}
    yield "whole", (2, 3, top_k - 1), {"key_range": tensor([[0, top_k - 3], [4, top_k]])}


def main(folder, spec):
    folder, spec = Path(folder), load_spec(spec)
    sys.path.insert(0, str(folder.parent))
    repair_interpreter()
    package = importlib.import_module(folder.name)
    report = {}
    for kind in (kind for kind in spec.kinds if kind.select is not None):
        layer, top_k = spec.layer_kinds.index(kind.name), kind.select.top_k

        def call(given, layer=layer, **keywords):
            values = (given["v"],) if given["v"] is not None else ()
            rest = {name: value for name, value in given.items() if name not in "qkv"}
            return package.attention(given["q"], given["k"], *values, layer=layer, return_lse=True, **rest, **keywords)

        inputs = make_indices(kind, 2, 2, 23, device="cpu", seed=5)
        report[f"{kind.name} lists"] = errors(*call(inputs), *reference.attention(kind, **inputs))
        if kind.select.indexer is None:
            continue
        for name, sizes, placed in cases(top_k):
            inputs = make_indices(kind, *sizes, device="cpu", seed=6)
            index, listed = make_index(kind, *sizes, device="cpu", seed=7), {}
            del inputs["indices"]
            if name == "selected":
                listed["indices"] = Selector(kind).cpu(*index.values(), **placed)
            found = call(inputs, **placed, **index)
            report[f"{kind.name} {name}"] = errors(*found, *reference.attention(kind, **inputs, **placed, **listed))
    kind = spec.kind("groups")
    index, placed = make_index(kind, 1, 9, 25, device="cpu", seed=8), {"offsets": tensor([14])}
    found = importlib.import_module(f"{folder.name}.groups").select(**index, **placed, workspace_bytes=1)
    assert torch.equal(found, Selector(kind).cpu(*index.values(), **placed)), "keys selected in two chunks"
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
