"""A process that loads a spec, makes one first call and prints how many seconds that call took; see host.py."""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    request = json.load(sys.stdin)
    import torch

    import attngen
    from attngen.inputs import make_inputs
    from attngen.spec import parse_spec

    spec = parse_spec(request["spec"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inputs = make_inputs(spec.kinds[0], request["batch"], request["seq"], request["seq"], device=device)
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    wait()
    attn = attngen.load(spec, db=request["db"])
    start = time.perf_counter()
    with torch.no_grad():
        attn[spec.kinds[0].name](**inputs)
    wait()
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
