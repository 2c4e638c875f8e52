"""The conversion: a config's family found, its fields read, and a Spec made, with notes on what was taken how."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, cast

from attngen.errors import SpecError, UsageError, one_of
from attngen.importer.config import ConfigText
from attngen.importer.families import (
    BY_MODEL_TYPE,
    CHUNKED,
    FULL,
    LOCAL,
    SELECTING,
    SHARING,
    SUPPORTED,
    Family,
)
from attngen.importer.latent import read_latent, read_select
from attngen.spec.fields import MAX_HEAD_DIM, MAX_HEADS, MIN_HEAD_DIM
from attngen.spec.kind import IMPLICIT_KIND, default_scale
from attngen.spec.model import EXTERNAL, Dtype, HeadDim, Heads, Kind, Spec, Window
from attngen.spec.parse import MAX_NAME
from attngen.spec.pattern import MAX_LAYERS

MAX_CHARACTERS = 1_000_000
KIND_NAMES = {LOCAL: "local", CHUNKED: "local", FULL: "global"}  # of the types that a config may list
SELECT_NAMES = {SELECTING: "sparse", SHARING: "shared"}


@dataclass(frozen=True)
class Imported:
    """A spec made from a config, and how the config's numbers were read, one sentence each."""

    spec: Spec
    notes: tuple[str, ...]


def load_config(path: str | PathLike[str], name: str | None = None) -> Imported:
    """The spec for the model whose ``config.json`` is at ``path``."""
    source = fspath(path)
    try:
        with Path(source).open(encoding="utf-8-sig") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"{source}: {reason}; the path of a Hugging Face config.json is needed") from None
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"{source}: more than {MAX_CHARACTERS} characters; a config.json is a page or two")
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError(
            source, error.lineno, error.colno, f"not valid JSON: {error.msg}", "JSON is what a config.json holds"
        ) from None
    except (RecursionError, ValueError):
        raise SpecError(source, 1, 1, "nested too deep, or with numbers too long", "a config is neither") from None
    if not isinstance(config, dict):
        raise SpecError(source, 1, 1, "the file holds no object", "{...} with a model_type is a config")
    return convert(ConfigText(config, {}, source, text), name)


def import_config(config: Mapping[str, Any], name: str | None = None) -> Imported:
    """The spec for the model that ``config``, a Hugging Face config as a dict, describes."""
    return convert(ConfigText(config, {}), name)


def convert(config: ConfigText, name: str | None) -> Imported:
    notes: list[str] = []
    outer, inner = config, config.inside("text_config")
    if inner is not None:
        config = inner
        notes.append("read from text_config: other towers, and images that see both ways, are not part of the spec")
    family = find_family(config, outer)
    config = config.with_defaults(family.defaults)
    layers = config.whole("num_hidden_layers", MAX_LAYERS)
    types = read_layer_types(config, family, layers, notes)
    base = read_base(config, outer, family, notes)
    names = SELECT_NAMES if family.latent else KIND_NAMES
    present = [layer_type for layer_type in dict.fromkeys(types) if layer_type in names]
    if family.latent:
        kinds = tuple(replace(base, name=names[t], select=read_select(t, config, notes)) for t in present)
    else:
        kinds = tuple(make_kind(layer_type, base, config, family, notes) for layer_type in present)
    if len(kinds) == 1 and EXTERNAL not in types and not family.latent:
        kinds = (replace(kinds[0], name=IMPLICIT_KIND),)
        layer_kinds = (IMPLICIT_KIND,) * layers
    else:
        layer_kinds = tuple(names.get(layer_type, EXTERNAL) for layer_type in types)
    for field, reason in family.ignored.items():
        if config.get(field) is not None:
            notes.append(f"{field} {config.get(field)} left out: {reason}")
    return Imported(Spec(choose_name(name, outer, config), layers, kinds, layer_kinds, config.source), tuple(notes))


def find_family(config: ConfigText, outer: ConfigText) -> Family:
    for model_type in (config.get("model_type"), outer.get("model_type")):
        if isinstance(model_type, str) and model_type in BY_MODEL_TYPE:
            return BY_MODEL_TYPE[model_type]
    raise outer.wrong("model_type", one_of(SUPPORTED))


def read_layer_types(config: ConfigText, family: Family, layers: int, notes: list[str]) -> list[str]:
    given = config.get("layer_types")
    if given is None or not family.explicit_layer_types:
        return family.layer_types(config, layers)
    if not isinstance(given, list) or not all(isinstance(layer_type, str) for layer_type in given):
        raise config.wrong("layer_types", f"a list of {layers} names")
    if len(given) != layers:
        remedy = f"{layers} would be right, as num_hidden_layers says"
        raise config.error("layer_types", f"layer_types has {len(given)} entries", remedy)
    unknown = sorted(set(given) - set(KIND_NAMES))
    if len(unknown) == len(set(given)):
        raise config.error(
            "layer_types", f"layer_types names no attention: {', '.join(unknown)}", f"{one_of(KIND_NAMES)} does"
        )
    if CHUNKED in given and LOCAL in given:
        raise config.error("layer_types", f"layer_types has both {CHUNKED} and {LOCAL}", "one of them would be right")
    notes += [f"layers of type {layer_type} are external: no attention is generated for them" for layer_type in unknown]
    return [layer_type if layer_type in KIND_NAMES else EXTERNAL for layer_type in given]


def read_base(config: ConfigText, outer: ConfigText, family: Family, notes: list[str]) -> Kind:
    """What all kinds of the model share."""
    dtype = config.dtype() or outer.dtype()
    if dtype is None:
        notes.append("the config names no dtype that attention is computed in: bfloat16 assumed")
        dtype = "bfloat16"
    if family.latent:
        return read_latent(config, dtype, notes)
    query = config.whole("num_attention_heads", MAX_HEADS)
    kv = query if config.get("num_key_value_heads") is None else config.whole("num_key_value_heads", MAX_HEADS)
    if query % kv:
        problem = f"num_key_value_heads {kv} does not divide num_attention_heads {query}"
        raise config.error("num_key_value_heads", problem, "a divisor would be right")
    head_dim = read_head_dim(config, family, query)
    scale = default_scale(head_dim)
    if family.scale_field is not None:
        scalar = config.positive(family.scale_field)
        scale = scalar**-0.5
        notes.append(f"{family.scale_field} {scalar:g} read as scale {scale:g}, its power -0.5")
    softcap = None
    if family.softcap_field is not None and config.get(family.softcap_field) is not None:
        softcap = config.positive(family.softcap_field)
    return Kind(
        name=IMPLICIT_KIND,
        heads=Heads(query, kv),
        head_dim=HeadDim(head_dim, head_dim),
        dtype=cast(Dtype, dtype),
        scale=scale,
        causal=family.causal,
        softcap=softcap,
        sink=family.sink,
    )


def read_head_dim(config: ConfigText, family: Family, heads: int) -> int:
    if family.own_head_dim and config.get("head_dim") is not None:
        head_dim, field = config.whole("head_dim"), "head_dim"
    else:
        head_dim, field = config.whole("hidden_size") // heads, "hidden_size"
    if not MIN_HEAD_DIM <= head_dim <= MAX_HEAD_DIM:
        remedy = f"{MIN_HEAD_DIM} to {MAX_HEAD_DIM} is what attngen generates"
        raise config.error(field, f"heads are {head_dim} wide", remedy)
    return head_dim


def make_kind(layer_type: str, base: Kind, config: ConfigText, family: Family, notes: list[str]) -> Kind:
    """The kind of one layer type: what it sees, by the family's rule, which is noted."""
    name = KIND_NAMES[layer_type]
    both_ways = read_both_ways(config, family, layer_type)
    causal = base.causal and not both_ways
    if layer_type == CHUNKED:
        chunk = config.whole("attention_chunk_size")
        notes.append(f"attention_chunk_size {chunk} read as i // {chunk} == j // {chunk}: chunks, not a window")
        return replace(base, name=name, chunk=chunk)
    if both_ways:
        notes.append(f"{both_ways} makes the {name} layers see both ways")
    if layer_type == FULL:
        return replace(base, name=name, causal=causal)
    field = family.window_field
    width = config.whole(field)
    if causal:
        rule = f"i - j < {width}: {width} keys, the causal Hugging Face rule"
        window = Window(width - 1, 0)
    else:
        half = width if both_ways == "is_causal false" else width // 2
        rule = f"|i - j| <= {half}: {2 * half + 1} keys, the bidirectional Hugging Face rule"
        window = Window(half, half)
    notes.append(f"{field} {width} read as {rule}")
    return replace(base, name=name, causal=causal, window=window)


def read_both_ways(config: ConfigText, family: Family, layer_type: str) -> str | None:
    """The setting that makes a causal family's layers see both ways, if one does."""
    if config.get("use_bidirectional_attention"):
        if not family.both_ways:
            problem = "use_bidirectional_attention is true, and transformers' own mask stays causal all the same"
            raise config.error("use_bidirectional_attention", problem, "only Gemma 3 can be imported with it")
        return "use_bidirectional_attention true"
    if family.causal and config.get("is_causal") is False:
        if layer_type == CHUNKED:
            raise config.error("is_causal", "is_causal is false for a model in chunks", "only true can be imported")
        return "is_causal false"
    return None


def choose_name(name: str | None, outer: ConfigText, config: ConfigText) -> str:
    """A name for the spec: the one asked for, else the model's, else its type."""
    origin = name or outer.get("_name_or_path") or ""
    last = str(origin).rstrip("/").rsplit("/", 1)[-1]
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")[:MAX_NAME]
    return clean or str(config.get("model_type") or outer.get("model_type")).replace("_", "-")
