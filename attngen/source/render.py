"""A plan and a config become source text; nothing here knows YAML, databases or GPUs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import jinja2

from attngen.config import Config
from attngen.plan import Plan
from attngen.plan.boxes import is_gluon
from attngen.plan.forward import ForwardPlan
from attngen.plan.routed import RoutedPlan
from attngen.problem import next_power_of_two
from attngen.resources import cache_dir, resource_dir
from attngen.source.backward import backward_context
from attngen.source.block_select import block_select_context
from attngen.source.context import forward_context
from attngen.source.gated import gated_context
from attngen.source.gathered import gathered_context
from attngen.source.indexer import indexer_context
from attngen.source.layout import laid_out
from attngen.source.quantise import quantise_context
from attngen.source.routed import merge_context, order_contexts, routed_context
from attngen.source.select import select_context
from attngen.source.text import assignment, call, decorator, fold, tidy
from attngen.source.types import NOTHING

TEMPLATES = {  # of each kernel's schedules
    "backward_elements": {"portable": "backward_elements_portable.py.j2"},
    "backward_kv": {
        "portable": "backward_kv_portable.py.j2",
        "hopper": "backward_kv_hopper.py.j2",
        "hopper_wide": "backward_kv_hopper_wide.py.j2",
        "hopper_window": "backward_kv_hopper_window.py.j2",
    },
    "backward_fused": {"hopper_fused": "backward_fused_hopper.py.j2"},
    "backward_q": {
        "portable": "backward_q_portable.py.j2",
        "hopper": "backward_q_hopper.py.j2",
        "hopper_window": "backward_q_hopper_window.py.j2",
    },
    "backward_rows": {"portable": "backward_rows.py.j2"},
    "block_select": {"portable": "block_select_portable.py.j2"},
    "forward": {
        "portable": "forward_portable.py.j2",
        "window": "forward_window.py.j2",
        "hopper": "forward_hopper.py.j2",
        "hopper_window": "forward_hopper_window.py.j2",
    },
    "gathered": {"portable": "gathered_portable.py.j2", "hopper": "gathered_hopper.py.j2"},
    "indexer": {"portable": "indexer_portable.py.j2", "hopper": "indexer_hopper.py.j2"},
    "gated": {"portable": "gated.py.j2"},
    "quantise": {"portable": "quantise.py.j2"},
    "routed": {"portable": "routed_portable.py.j2"},
    "select": {"portable": "select_portable.py.j2", "hopper": "select_hopper.py.j2"},
}
CONTEXTS: dict[str, Callable[[Any, Config], dict[str, Any]]] = {  # by kernel
    "backward_elements": backward_context,
    "backward_kv": backward_context,
    "backward_fused": backward_context,
    "backward_q": backward_context,
    "backward_rows": backward_context,
    "block_select": block_select_context,
    "forward": forward_context,
    "gathered": gathered_context,
    "indexer": indexer_context,
    "gated": gated_context,
    "quantise": quantise_context,
    "routed": routed_context,
    "select": select_context,
}
ORDERING, MERGING = "routed_order.py.j2", "routed_merge.py.j2"
TURNING = "turn_values.py.j2"
TURNED_BLOCK = 128  # keys of a tile that is turned
TURNING_WARPS = 8

IMPORTED = re.compile(r'{%-? *(?:import|from|include|extends) +"([^"]+)"')


@dataclass(frozen=True)
class Source:
    """One generated module: its text, its entry point, and what the entry takes, in order."""

    text: str
    entry: str
    parameters: tuple[str, ...]  # run-time parameters
    types: tuple[str, ...]  # of the run-time parameters, as Triton spells them
    constexprs: tuple[str, ...]  # tunables given at launch, from the config
    options: dict[str, Any] = field(default_factory=dict, hash=False)  # the compiler's

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def render(plan: Plan, config: Config) -> Source:
    """The kernel of ``plan`` for the structural choices of ``config``.

    Tile sizes stay compile-time parameters of the launch where the text does not depend on them, so that one text
    serves many configs.
    """
    template = TEMPLATES[plan.kernel][str(config["schedule"])]
    return _filled(template, CONTEXTS[plan.kernel](plan, config), laid_out if is_gluon(config) else str)


def _filled(template: str, context: dict[str, Any], finish: Callable[[str], str] = str) -> Source:
    """The template's text, tidied and finished, with what its context says of it."""
    return Source(
        text=finish(tidy(_environment().get_template(template).render(context))),
        entry=context["entry"],
        parameters=tuple(parameter.name for parameter in context["parameters"]),
        types=context["types"],
        constexprs=context["constexprs"],
        options=context["options"],
    )


def render_routing(plan: RoutedPlan) -> dict[str, Source]:
    """The kernels around that of ``plan``: mark, count and order sort queries by their blocks, merge ends a call."""
    made = {name: _filled(ORDERING, context) for name, context in order_contexts(plan).items()}
    return {**made, "merge": _filled(MERGING, merge_context(plan))}


def render_turning(plan: ForwardPlan) -> Source:
    """The kernel that turns values before those run that take them so."""
    values = {"v_dim": plan.kind.head_dim.v, "width": next_power_of_two(plan.kind.head_dim.v), "block": TURNED_BLOCK}
    text = _environment().get_template(TURNING).render(values)
    types = {"v_ptr": "*u8", "turned_ptr": "*u8", "key_range_ptr": NOTHING}
    types |= dict.fromkeys(("stride_vb", "stride_vh", "stride_vs", "kv_heads", "seq_k", "seq_turned"), "i32")
    return Source(tidy(text), "turn_values", tuple(types), tuple(types.values()), (), {"num_warps": TURNING_WARPS})


class _CompiledTemplates(jinja2.FileSystemBytecodeCache):
    """Templates as Python compiled them, in the user's cache; what cannot be kept there is compiled again."""

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        with suppress(OSError):
            super().dump_bytecode(bucket)


def _compiled_templates() -> _CompiledTemplates | None:
    folder = cache_dir() / "templates"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return _CompiledTemplates(str(folder))


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_dir("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        bytecode_cache=_compiled_templates(),
    )
    environment.globals["call"] = call
    environment.globals["assignment"] = assignment
    environment.globals["decorator"] = decorator
    environment.globals["fold"] = fold
    environment.filters["suffixed"] = lambda name, suffix: f"{name}{suffix}"
    environment.filters["prefixed"] = lambda name, prefix: f"{prefix}{name}"
    return environment


def template_digest(kernel: str, config: Config) -> str:
    """Changes whenever the template of a config's schedule does, or one that it imports (not the kernels that turn
    values, sort queries or merge results): a tuning made with other templates is worth less. Empty for a schedule that
    there is not."""
    template = TEMPLATES.get(kernel, {}).get(str(config.get("schedule")))
    return "" if template is None else _digest(template)


@cache
def _digest(template: str) -> str:
    loader = _environment().loader
    assert loader is not None
    texts: dict[str, str] = {}
    waiting = [template]
    while waiting:
        name = waiting.pop()
        if name not in texts:
            texts[name] = loader.get_source(_environment(), name)[0]
            waiting += IMPORTED.findall(texts[name])
    return hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()[:12]
