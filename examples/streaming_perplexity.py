"""StreamingLLM on SmolLM2-135M: perplexity by position with all keys, a window alone, and the window with the first 4.

    python examples/streaming_perplexity.py [--device cuda] [--length 1024] [--window 128] [--first 4] [--texts 4]
                                            [--json streaming.json] [--out streaming.svg] [--draw]

A model pays much of its attention to the first tokens of a text, whatever they are. Where a window lets go of them its
loss explodes; where they stay in sight it does not (Xiao et al., arXiv:2309.17453). The three patterns differ by a line
or two of YAML. The text is Genesis, in stretches of --length tokens that are read apart; losses are means over them.

StreamingLLM counts positions within its cache, so that a text may go on for ever. A mask leaves positions as they are
in the text, so lengths stay within the 8192 that the model is made for, where all keys are a measure for the rest.
Exit status 1 when attention to all keys is not transformers' own.
"""

import argparse
import math
import sys
from pathlib import Path

import torch
from king_james import verses
from options import add_device, add_dtype, dtype_of, keep, kept, name_of, picture
from smollm2 import REST, SPEC, compare, load, losses

from attngen.integrations.transformers import register
from attngen.spec import load_spec, parse_spec

SEGMENTS = 64  # of a text, equally long: a point of the picture each
ROWS = 8  # of the table
GENESIS = 1533  # verses
LONGEST = REST["max_position_embeddings"]
COLOURS = {"all": "#8c959f", "window": "#bf8700", "first": "#1f6feb"}
TICKS = (1, 2, 5, 10, 20, 50, 100, 200)


def patterns(window: int, first: int) -> dict[str, str]:
    """What each variant adds to the model's own spec."""
    alone = f"window: {{total: {window}}}\n"
    return {"all": "", "window": alone, "first": alone + f"always: {{first: {first}}}\n"}


def names(data: dict) -> dict[str, str]:
    """What the variants are called, in table and picture."""
    window = f"window of {data['window']}"
    return {"all": "all keys", "window": window, "first": f"{window} and the first {data['first']}"}


def measure(model, texts: torch.Tensor, spec) -> list[float]:
    """The mean loss of each segment of positions."""
    attention = register(spec, strict=False)
    by_position = torch.stack([losses(model, ids[None], attention) for ids in texts]).mean(0)
    return [round(loss, 5) for loss in by_position.unflatten(0, (SEGMENTS, -1)).mean(1).tolist()]


def perplexity(segments: list[float]) -> float:
    return math.exp(sum(segments) / len(segments))


def beyond(data: dict) -> dict[str, float]:
    """The perplexity of each variant where the first tokens have left the window."""
    first = -(-data["window"] * SEGMENTS // data["length"])
    return {name: perplexity(segments[first:]) for name, segments in data["losses"].items()}


def table(data: dict) -> str:
    """A line for each eighth of the positions, and one for those past the window."""
    titles = names(data)
    lines = ["  ".join(["    positions", *titles.values()])]
    rows = {}
    for row in range(ROWS):
        part = slice(row * SEGMENTS // ROWS, (row + 1) * SEGMENTS // ROWS)
        start, end = (place * data["length"] // SEGMENTS for place in (part.start, part.stop))
        rows[f"{start} to {end - 1}"] = {name: perplexity(data["losses"][name][part]) for name in titles}
    rows["past window"] = beyond(data)
    for positions, values in rows.items():
        cells = [f"{values[name]:{len(title)}.2f}" for name, title in titles.items()]
        lines.append("  ".join([f"{positions:>13}", *cells]))
    return "\n".join(lines)


def draw(data: dict, path: Path) -> None:
    """Perplexity over position, a line for each variant."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    step, window = data["length"] // SEGMENTS, data["window"]
    middles = [(n + 0.5) * step for n in range(SEGMENTS)]
    past, drawn = beyond(data), [loss for segments in data["losses"].values() for loss in segments]
    with rc_context({"svg.hashsalt": "attngen"}):
        figure = Figure(figsize=(8, 4.8), layout="constrained")
        axes = figure.subplots()
        for name, title in names(data).items():
            values = [math.exp(loss) for loss in data["losses"][name]]
            axes.plot(middles, values, color=COLOURS[name], lw=3 if name == "all" else 1.5, label=title)
        axes.axvline(window, color="#57606a", lw=0.8, ls=":")
        axes.annotate("the first token\nleaves the window", (window, 1), (6, -22), axes.get_xaxis_transform(),
                      textcoords="offset points", fontsize=8, color="#57606a")  # fmt: skip
        others = f"with the first {data['first']}, {past['first']:.1f}; with all, {past['all']:.1f}"
        title = f"SmolLM2-135M past a window of {window} keys: perplexity {past['window']:.1f}; {others}"
        axes.set_title(f"{title}\n{data['texts']} stretches of Genesis, {data['device']}", fontsize=10)
        axes.set_yscale("log")
        axes.set_yticks(TICKS, [str(tick) for tick in TICKS])
        axes.set_yticks([], minor=True)
        axes.set_ylim(math.exp(min(drawn)) / 1.3, math.exp(max(drawn)) * 1.8)  # room above for what is written there
        axes.set_xlim(0, data["length"])
        axes.set_xticks([row * data["length"] // ROWS for row in range(ROWS + 1)])
        axes.set_xlabel("position in the text")
        axes.set_ylabel(f"perplexity, {step} positions a point")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="upper right")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def run(device: str, length: int, window: int, first: int, count: int, dtype: torch.dtype, random: bool) -> dict | None:
    """The losses of all variants; None where all keys give other ones than transformers' own attention does."""
    model, tokens = load(random, " ".join(verses("Genesis", GENESIS)))
    if len(tokens) <= length * count:
        raise SystemExit(f"Genesis has {len(tokens)} tokens, too few for {count} texts of {length}")
    stretches = torch.tensor(tokens, device=device).unfold(0, length + 1, length)  # the last token is only predicted
    texts = stretches[:count]
    model = model.to(device)
    if not compare(model, texts[:1], load_spec(SPEC), dtype):
        return None
    found = {}
    for name, lines in patterns(window, first).items():
        print(f"reading with {name}", flush=True)
        found[name] = measure(model, texts, parse_spec(SPEC.read_text() + lines))
    asked = {"device": name_of(device), "dtype": str(dtype).removeprefix("torch."), "texts": count}
    return {**asked, "length": length, "window": window, "first": first, "losses": found}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_device(parser)
    parser.add_argument("--length", type=int, help=f"tokens of a text (1024 on a CPU, {LONGEST} on a GPU)")
    parser.add_argument("--window", type=int, help="keys of the window (an eighth of the length)")
    parser.add_argument("--first", type=int, default=4, help="keys that stay in sight (4)")
    parser.add_argument("--texts", type=int, default=4, help="stretches of Genesis (4)")
    add_dtype(parser)
    parser.add_argument("--random", action="store_true", help="random weights instead of the real ones")
    parser.add_argument("--json", type=Path, default=Path("streaming.json"), help="where the losses are kept")
    parser.add_argument("--out", type=picture, help="an SVG or PNG to draw")
    parser.add_argument("--draw", action="store_true", help="only show what --json has")
    options = parser.parse_args(arguments)
    if not options.draw:
        on_cpu = options.device == "cpu"
        length = (1024 if on_cpu else LONGEST) if options.length is None else options.length
        window = length // 8 if options.window is None else options.window
        if min(length, window, options.texts, options.first) < 1:
            parser.error("--length, --window, --first and --texts are at least 1")
        if length % SEGMENTS or length > LONGEST or length < 2 * window:
            parser.error(f"--length is a multiple of {SEGMENTS}, up to {LONGEST}, and at least twice --window")
        dtype = dtype_of(options)
        data = run(options.device, length, window, options.first, options.texts, dtype, options.random)
        if data is None:
            return 1
        keep(options.json, data)
    data = kept(parser, options.json)
    print(table(data))
    if options.out is not None:
        draw(data, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
