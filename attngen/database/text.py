"""Tunings as text, one file a GPU: written the same way every time, read as strictly as a stranger's word deserves."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any, NoReturn

import yaml

from attngen.config import Config
from attngen.database.checks import DIGEST, NAME, TARGET, checked_config
from attngen.database.trial import LONGEST_TEXT, ORIGINS, STATUSES, Trial
from attngen.database.versions import Versions
from attngen.errors import SpecError, did_you_mean, one_of
from attngen.problem import Problem

FORMAT = 1
LARGEST_SIZE = 2**31
DEEPEST = 8
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where libyaml is there
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def write_tunings(target: str, trials: Iterable[Trial]) -> str:
    """The trials of one GPU as YAML, ordered so that a new tuning changes only its own lines."""
    out = io.StringIO()
    out.write(f"# Tunings for {target}. README.md in tuning_db/ says what the fields mean.\n")
    out.write(f"format: {FORMAT}\ntarget: {target}\ntunings:\n")
    ordered = sorted(trials, key=_order)
    for trial in ordered:
        if trial.target != target:
            raise ValueError(f"a trial of {trial.target} does not belong in the file of {target}")
        lines = [f"{name}: {_inline(value)}" for name, value in trial.as_dict().items()]
        out.write("- " + "\n  ".join(lines) + "\n")
    return out.getvalue() if ordered else out.getvalue().replace("tunings:\n", "tunings: []\n")


def _order(trial: Trial) -> tuple:
    p = trial.problem
    sizes = (p.kernel, p.digest, p.seq_k, p.seq_q, p.batch)
    return (trial.spec, trial.kind, *sizes, trial.source, trial.median_ms or float("inf"), trial.fingerprint())


def _inline(value: Any) -> str:
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return f"\n{text}".removesuffix("\n...\n").strip()  # the end of a document, on a line of its own


def read_tunings(text: str, source: str = "<string>") -> list[Trial]:
    """The trials in one file; a SpecError with line and column where it is not what we write.

    Nothing in the file is evaluated: no tags, no aliases, and every value is of a known, plain kind.
    """
    root = _Reader(source).compose(text)
    reader = _Reader(source)
    fields = reader.mapping(root, ("format", "target", "tunings"), required=("format", "target", "tunings"))
    version = reader.integer(fields["format"])
    if version != FORMAT:
        reader.fail(fields["format"], f"format {version} is not known", f"this attngen reads format {FORMAT}")
    target = reader.word(fields["target"], TARGET, "a target's name, such as h100")
    tunings = fields["tunings"]
    if not isinstance(tunings, yaml.SequenceNode):
        reader.fail(tunings, "tunings is not a list", "each tuning is one '- ' entry")
    return [reader.trial(node, target) for node in tunings.value]


class _Reader:
    """Turns YAML nodes into values, knowing where each one stands."""

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, node: Any, problem: str, remedy: str) -> NoReturn:
        raise SpecError(self.source, node.start_mark.line + 1, node.start_mark.column + 1, problem, remedy)

    def compose(self, text: str) -> Any:
        depth = 0
        try:
            for event in yaml.parse(text, Loader=_Loader):
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if depth > DEEPEST:  # before composing, whose recursion is in C and unguarded
                    self.fail(event, "nested too deeply", "a file written by db export")
                anchored = isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None)
                if anchored or getattr(event, "tag", None):
                    self.fail(event, "tags, anchors and aliases are not allowed here", "write the value itself")
            root = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            problem = f"not YAML: {error.problem or error.context}"
            raise SpecError(self.source, line, column, problem, "a file written by db export") from None
        except (yaml.YAMLError, RecursionError) as error:
            raise SpecError(self.source, 1, 1, f"not YAML: {error}", "a file written by db export") from None
        if root is None:
            raise SpecError(self.source, 1, 1, "the file is empty", "a file written by db export")
        return root

    def mapping(self, node: Any, allowed: Iterable[str], required: Iterable[str] = ()) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, "not a mapping", f"give {one_of(allowed)}")
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            if name not in allowed:
                self.fail(key, f"unknown field '{name}'", did_you_mean(name, allowed))
            if name in found:
                self.fail(key, f"field '{name}' is given twice", "keep one")
            found[name] = value
        for name in required:
            if name not in found:
                self.fail(node, f"field '{name}' is missing", f"{', '.join(required)} are needed")
        return found

    def scalar(self, node: Any) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            self.fail(node, "not a plain value", "give one number or text")
        try:
            return _Constructor().construct_object(node)
        except (yaml.YAMLError, ValueError):
            return node.value  # a date or a tag of ours to judge: keep the text

    def integer(self, node: Any, least: int = 0) -> int:
        value = self.scalar(node)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST_SIZE:
            self.fail(node, f"{node.value!r} is not a whole number from {least} to 2**31", "give one")
        return value

    def positive(self, node: Any) -> float:
        value = self.scalar(node)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
            self.fail(node, f"{node.value!r} is not a finite number from 0", "give one")
        return float(value)

    def flag(self, node: Any) -> bool:
        value = self.scalar(node)
        if not isinstance(value, bool):
            self.fail(node, f"{node.value!r} is not a bool", "give true or false")
        return value

    def text(self, node: Any) -> str:
        self.scalar(node)
        value = node.value
        if len(value) > LONGEST_TEXT or not value.isprintable():
            self.fail(node, "text has control characters or is too long", f"one line of at most {LONGEST_TEXT}")
        return value

    def word(self, node: Any, pattern: Any, meaning: str) -> str:
        value = self.text(node)
        if not pattern.fullmatch(value):
            self.fail(node, f"{value!r} is not {meaning}", f"it must match {pattern.pattern}")
        return value

    def one_of(self, allowed: tuple[str, ...]) -> Callable[[Any], Any]:
        def read(node: Any) -> str:
            value = self.text(node)
            if value not in allowed:
                self.fail(node, f"{value!r} is not known here", did_you_mean(value, allowed))
            return value

        return read

    def config(self, node: Any) -> Config:
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, "config is not a mapping", "give {name: value, ...}")
        values: dict[Any, Any] = {}
        for key, value in node.value:
            name = self.text(key)
            if name in values:
                self.fail(key, f"config value '{name}' is given twice", "keep one")
            values[name] = self.scalar(value)
        try:
            return Config.from_dict(checked_config(values))
        except ValueError as error:
            self.fail(node, str(error), "nothing else may be in a config")

    def versions(self, node: Any) -> Versions:
        fields = self.mapping(node, tuple(Versions.__dataclass_fields__))
        return Versions(**{name: self.text(value) for name, value in fields.items()})

    def time(self, node: Any) -> datetime:
        try:
            return datetime.strptime(self.text(node), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
        except ValueError:
            self.fail(node, f"{node.value!r} is not a time in UTC", "such as 2026-01-31T12:00:00Z")

    def trial(self, node: Any, target: str) -> Trial:
        counts = ("samples", "registers", "spills", "shared")
        numbers = ("median_ms", "spread_ms", "compile_seconds")
        texts = ("spec", "kind", "description", "error", "device", "template", "study")
        readers: dict[str, Callable[[Any], Any]] = {
            "kernel": lambda n: self.word(n, NAME, "a kernel's name"),
            "digest": lambda n: self.word(n, DIGEST, "a kind's digest"),
            **dict.fromkeys(("batch", "seq_q", "seq_k"), lambda n: self.integer(n, least=1)),
            "config": self.config,
            "status": self.one_of(STATUSES),
            "source": self.one_of(ORIGINS),
            "final": self.flag,
            "versions": self.versions,
            "created": self.time,
            **dict.fromkeys(counts, self.integer),
            **dict.fromkeys(numbers, self.positive),
            **dict.fromkeys(texts, self.text),
        }
        problem = ("kernel", "digest", "batch", "seq_q", "seq_k")
        fields = self.mapping(node, tuple(readers), required=(*problem, "config", "status", "source", "created"))
        values = {name: readers[name](value) for name, value in fields.items()}
        if values["status"] == "ok" and not values.get("median_ms"):
            self.fail(node, "a tuning that is ok needs its median_ms", "give the time in milliseconds")
        return Trial(problem=Problem(*(values.pop(name) for name in problem)), target=target, **values)


class _Constructor(yaml.constructor.SafeConstructor):
    """PyYAML's rules for scalars, without the rest of a loader."""

    def __init__(self) -> None:
        super().__init__()
