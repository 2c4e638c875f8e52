"""The distinct kernels among an op's configs: what differs only in tile sizes shares one text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attngen.config import Config, Value
from attngen.plan import ForwardPlan
from attngen.source import Source, render


@dataclass(frozen=True)
class Variant:
    """One kernel: its module, what the op calls it, and the first config that needs it."""

    module: str
    alias: str
    source: Source
    config: Config

    @property
    def descriptors(self) -> bool:
        """Whether keys and values come by the GPU's copy engine."""
        return self.config.get("loads") == "descriptor"


def variants_of(plan: ForwardPlan, function: str, configs: Sequence[Config]) -> dict[Config, Variant]:
    """The kernel of each config; where there are several, what tells them apart is in their names."""
    sources = {config: render(plan, config) for config in configs}
    firsts: dict[str, Config] = {}
    for config, source in sources.items():
        firsts.setdefault(source.text, config)
    suffixes = _suffixes(list(firsts.values()), sources[configs[0]].constexprs)
    made = {
        text: Variant(f"_{function}_kernel{suffix}", f"_kernel{suffix}", sources[config], config)
        for (text, config), suffix in zip(firsts.items(), suffixes, strict=True)
    }
    return {config: made[source.text] for config, source in sources.items()}


def _suffixes(configs: list[Config], constexprs: Sequence[str]) -> list[str]:
    """``_descriptor_pack4``: the structural choices in which the configs differ."""
    if len(configs) == 1:
        return [""]
    given_at_launch = {*constexprs, "num_warps", "num_stages", "maxnreg"}
    names = sorted({name for config in configs for name in config if name not in given_at_launch})
    differing = [name for name in names if len({config.get(name) for config in configs}) > 1]
    words = ["".join(_word(name, config.get(name)) for name in differing) for config in configs]
    if len(set(words)) == len(words):
        return words
    return [f"{word}_{n}" for n, word in enumerate(words, 1)]  # texts that depend on their tile sizes


def _word(name: str, value: Value) -> str:
    match name, value:
        case "PACK_HEADS", _:
            return f"_pack{value}"
        case "SPLIT_MASKS", _:
            return "_split" if value else "_masked"
        case _, str():
            return f"_{value}"
        case _:
            return f"_{name.lower()}_{value}".replace("-", "_")
