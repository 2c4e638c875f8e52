"""The distinct kernels among an op's configs: what differs only in tile sizes shares one text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attngen.config import Config, Value
from attngen.plan import Plan
from attngen.plan.boxes import is_gluon
from attngen.source import Source, render


@dataclass(frozen=True)
class Variant:
    """One kernel: its module, what the op calls it, and the first config that needs it."""

    module: str
    alias: str
    source: Source
    config: Config

    @property
    def loads(self) -> str:
        """How tensors come: ``pointer``; keys and values by ``descriptor``; everything, and out, by ``gluon``'s."""
        return "gluon" if is_gluon(self.config) else str(self.config.get("loads"))


def variants_of(plan: Plan, function: str, configs: Sequence[Config], alias: str = "") -> dict[Config, Variant]:
    """The kernel of each config; where there are several, what tells them apart is in their names.

    ``alias``: what the op's module calls a kernel of which it has several sorts.
    """
    sources = {config: render(plan, config) for config in configs}
    firsts: dict[str, Config] = {}
    for config, source in sources.items():
        firsts.setdefault(source.text, config)
    suffixes = _suffixes(list(firsts.values()), sources)
    made = {
        text: Variant(f"_{function}_kernel{suffix}", f"{alias}_kernel{suffix}", sources[config], config)
        for (text, config), suffix in zip(firsts.items(), suffixes, strict=True)
    }
    return {config: made[source.text] for config, source in sources.items()}


def _suffixes(configs: list[Config], sources: Mapping[Config, Source]) -> list[str]:
    """``_descriptor_pack4``: the structural choices in which the configs differ; of Gluon, with its many, the tile."""
    if len(configs) == 1:
        return [""]
    plain = [config for config in configs if not is_gluon(config)]
    names = sorted({name for config in plain for name in config})
    differing = [name for name in names if len({config.get(name) for config in plain}) > 1]
    words = []
    for config in configs:
        if is_gluon(config):
            tile = f"_{config['BLOCK_M']}x{config['BLOCK_N']}" if "BLOCK_M" in config else ""
            words.append(f"_{config['schedule']}{tile}")
            continue
        given_at_launch = {*sources[config].constexprs, "num_warps", "num_stages", "maxnreg"}
        structural = [name for name in differing if name not in given_at_launch]
        words.append("".join(_word(name, config.get(name)) for name in structural) or f"_{config['schedule']}")
    again = {word for word in words if words.count(word) > 1}  # texts that depend on other tunables
    return [f"{word}_{n}" if word in again else word for n, word in enumerate(words, 1)]


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
