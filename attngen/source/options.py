"""The compiler's own options among a forward kernel's tunables."""

from __future__ import annotations

from typing import Any

from attngen.config import Config
from attngen.plan.hopper import ENTRY_REGISTERS, ROWS
from attngen.plan.hopper_window import MOST_REGISTERS


def forward_options(config: Config) -> dict[str, Any]:
    """Warps, stages and registers, as Triton takes them."""
    if config["schedule"] == "hopper_window":
        return {"num_warps": 4, "maxnreg": config.get("maxnreg") or MOST_REGISTERS}
    if config["schedule"] == "hopper":
        return {"num_warps": 4, "maxnreg": ENTRY_REGISTERS[int(config["BLOCK_M"] or 0) // ROWS]}
    options = {"num_warps": config["num_warps"], "num_stages": config["num_stages"]}
    if config.get("maxnreg"):
        options["maxnreg"] = config["maxnreg"]
    return options
