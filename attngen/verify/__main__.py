"""The child that interprets: a request as JSON on stdin, a finding as JSON on each line of stdout."""

from __future__ import annotations

import json
import sys

from attngen.spec import parse_spec
from attngen.target import get_target
from attngen.verify.interpreted import Request
from attngen.verify.kinds import verify_kinds
from attngen.verify.rounding import repair_interpreter


def main() -> None:
    repair_interpreter()
    request = Request(**json.load(sys.stdin))
    spec = parse_spec(request.spec, "the spec")
    kinds = [spec.kind(name) for name in request.kinds]
    findings = verify_kinds(kinds, get_target(request.target), db=request.db, seqs=tuple(request.seqs), interpret=True)
    for finding in findings:
        print(json.dumps(finding.as_dict()), flush=True)
    print(json.dumps({"finished": True}), flush=True)


if __name__ == "__main__":
    main()
