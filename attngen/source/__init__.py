"""Source: a plan and a config as text, as a module, and as what a compiler makes of it."""

from attngen.source.cross import CompileError, Resources, compile_source
from attngen.source.module import load_source
from attngen.source.render import Source, render, render_routing, render_turning, template_digest

__all__ = [
    "CompileError",
    "Resources",
    "Source",
    "compile_source",
    "load_source",
    "render",
    "render_routing",
    "render_turning",
    "template_digest",
]
