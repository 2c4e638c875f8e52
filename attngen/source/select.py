"""The named values that the templates of the selection are filled with."""

from __future__ import annotations

import textwrap
from typing import Any

from attngen.config import Config
from attngen.plan.select import ALIGNED, RUN, SelectPlan
from attngen.problem import next_power_of_two
from attngen.source.elementwise import Assignment
from attngen.source.parameters import Parameter
from attngen.source.types import pointer

HOPPER_REGISTERS = 64  # of a thread: 1024 threads share an SM


def select_context(plan: SelectPlan, config: Config) -> dict[str, Any]:
    """Everything that a template of the selection refers to."""
    hopper = config["schedule"] == "hopper"
    parameters = [
        Parameter("logits_ptr", f"[rows, columns], {plan.logits}"),
        Parameter("key_first_ptr", "[rows], int32, first key of each row"),
        Parameter("key_end_ptr", "[rows], int32, the key after its last one"),
        Parameter("out_ptr", "[rows, TOP_K], int32"),
        Parameter(
            "scratch_ptr",
            "[programs, LIST + BLOCK], int64, of no value before and after",
        ),
        Parameter("stride_logits", f"elements from row to row, a multiple of {ALIGNED}"),
        Parameter("stride_out"),
        Parameter("rows"),
        Parameter("columns"),
    ]
    pointers = {"logits_ptr": pointer(plan.logits), "scratch_ptr": pointer("int64")}
    types = tuple(pointers.get(p.name, pointer("int32")) if p.name.endswith("_ptr") else "i32" for p in parameters)
    options: dict[str, Any] = {"num_warps": config["num_warps"]}
    options |= {"maxnreg": HOPPER_REGISTERS} if hopper else {"num_stages": 1}
    return {
        "plan": plan,
        "entry": "select_keys",
        "docstring": _docstring(plan),
        "constants": _constants(plan, config, hopper),
        "parameters": parameters,
        "types": types,
        "constexprs": (),
        "options": options,
        "unspecialised": ["stride_out", "rows", "columns"],
        "chosen": "TOP_K" if plan.chosen == plan.top_k else "CHOSEN",
        "converted": plan.logits != "float32",
        "aligned": ALIGNED,
        "listed": next_power_of_two(plan.top_k),
        "width_first": next_power_of_two(plan.first),
        "width_last": next_power_of_two(plan.last),
    }


def _constants(plan: SelectPlan, config: Config, hopper: bool) -> list[Assignment]:
    block, longest, sample = (int(config[name] or 0) for name in ("BLOCK", "LIST", "SAMPLE"))
    out = [Assignment("TOP_K", str(plan.top_k), "keys selected of a row")]
    if plan.first:
        out.append(Assignment("FIRST", str(plan.first), "of them, so many are the row's first"))
    if plan.last:
        out.append(Assignment("LAST", str(plan.last), "of them, so many are the row's last"))
    if plan.chosen:
        if plan.chosen != plan.top_k:
            out.append(Assignment("CHOSEN", str(plan.chosen), "of them, so many are selected by their logits"))
        out += [
            Assignment("BLOCK", str(block), "keys of a tile"),
            Assignment("LIST", str(longest), "candidates after which a list is cut; a tile more fits into it"),
            Assignment("PIECE", str(longest // 2), "candidates that are copied together"),
            Assignment("SAMPLE", str(sample), "logits from which the first bound is guessed"),
            Assignment("RUN", str(RUN), "of them, so many are neighbours"),
        ]
        if hopper:
            threads = 32 * int(config["num_warps"] or 0)
            out += [
                Assignment("WARPS", str(config["num_warps"])),
                Assignment("THREADS", str(threads)),
            ]
        out += [
            Assignment("NOTHING", "-0x80000000", "the order of what is no key, below -inf"),
            Assignment("ZERO", "-1", "the order that -0.0 would have"),
            Assignment("INFINITY", "0x7F800000", "the order of +inf"),
            Assignment("NAN", "0x7FC00000", "the order of NaN, above +inf"),
        ]
    return out


def _docstring(plan: SelectPlan) -> str:
    forced = [f"the {n} {name}" for n, name in ((plan.first, "first"), (plan.last, "last")) if n]
    rules = [
        f"The result of a row is the set of its {plan.top_k} largest keys in ascending order; -1 fills what is left, "
        f"and a row of at most {plan.top_k} keys lists them all.",
        "Logits are ordered as torch.sort(descending=True, stable=True) does: NaN first of all and every NaN alike, "
        "then +inf; -0.0 equals 0.0; -inf comes last and is a key like others. Of equal logits the lowest key comes "
        "first.",
    ]
    if forced:
        rules.append(
            f"Whatever their logits, {' and '.join(forced)} keys of a row are selected, among the {plan.top_k}."
        )
    rules.append(
        "It is the same, bit for bit, for any number of rows in a launch, any tile and any schedule. A row is read "
        "once, and again where a guess from its sample was wrong, which changes the time it takes and nothing else."
    )
    lines = [f"Selection of the top {plan.top_k} keys of rows of {plan.logits} logits.", ""]
    for rule in rules:
        lines += [*textwrap.wrap(rule, 116), ""]
    return "\n".join([*lines, "Needs torch and triton. Generated by attngen."]) + "\n"
