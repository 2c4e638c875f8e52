"""A plan and a config become source text; nothing here knows YAML, databases or GPUs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import jinja2

from attngen.config import Config
from attngen.plan.forward import ForwardPlan
from attngen.resources import resource_dir
from attngen.source.context import forward_context
from attngen.source.text import assignment, call, decorator, fold, tidy

TEMPLATES = {
    "portable": "forward_portable.py.j2",
    "window": "forward_window.py.j2",
    "hopper": "forward_hopper.py.j2",
}


@dataclass(frozen=True)
class Source:
    """One generated module: its text, its entry point, and what the entry takes, in order."""

    text: str
    entry: str
    parameters: tuple[str, ...]  # run-time parameters
    constexprs: tuple[str, ...]  # tunables given at launch, from the config

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def render(plan: ForwardPlan, config: Config) -> Source:
    """The kernel of ``plan`` for the structural choices of ``config``.

    Tile sizes stay compile-time parameters of the launch where the text does not depend on them, so that one text
    serves many configs.
    """
    context = forward_context(plan, config)
    text = _environment().get_template(TEMPLATES[str(config["schedule"])]).render(context)
    return Source(
        text=tidy(text),
        entry="attention_forward",
        parameters=tuple(parameter.name for parameter in context["parameters"]),
        constexprs=context["constexprs"],
    )


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_dir("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.globals["call"] = call
    environment.globals["assignment"] = assignment
    environment.globals["decorator"] = decorator
    environment.globals["fold"] = fold
    environment.filters["suffixed"] = lambda name, suffix: f"{name}{suffix}"
    return environment


@lru_cache(maxsize=1)
def template_digest() -> str:
    """Changes whenever a kernel's template does: a tuning made with other templates is worth less."""
    folder = resource_dir("templates")
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.j2"), *folder.glob("parts/*.j2")]):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
