"""One attention layer of DeepSeek-V3.2, prefilled: microseconds a token, sparse against dense, by length; a picture.

    python examples/deepseek_prefill.py [--data layer.json] [--picture layer.png] [--lengths 4096 8192 ...]

Measures the last 4096 tokens of each length on this GPU: the indexer's quantisation, logits and selection, and latent
attention over the 2048 keys that were selected; beside it dense attention of the same layer in its cheaper form, 128
heads of 192/128, by attngen and, where it is installed, by FlashAttention-3. Projections are left out of both. The
figures are kept in --data; without a GPU, or with --draw, the picture is drawn from there.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path

import torch

import attngen
from attngen.spec import parse_spec

SPEC = Path(__file__).with_name("deepseek-v3.2.yaml")
DENSE = "{name: deepseek-v3.2-dense, heads: 128, head_dim: {qk: 192, v: 128}, scale: 0.1352337788608801, causal: true}"
QUERIES = 4096
LENGTHS = (4096, 8192, 16384, 32768, 65536, 131072)
ROUNDS = 5
PARTS = ("attention to 2048 keys", "indexer and selection")
SYSTEMS = {"dense": ("dense, attngen", "#8c959f"), "dense_fa3": ("dense, FlashAttention-3", "#bf8700")}


def timed(calls: dict) -> dict[str, float]:
    """Milliseconds of each call: medians of rounds in turns."""
    for call in calls.values():
        call()
    times = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            call()
            end.record()
            end.synchronize()
            times[name].append(start.elapsed_time(end))
    return {name: sorted(found)[ROUNDS // 2] for name, found in times.items()}


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def fa3():
    """FlashAttention-3's function, or None."""
    try:
        from flash_attn_interface import flash_attn_func
    except ImportError:
        return None
    return flash_attn_func


@torch.no_grad()
def measure_sparse(length: int) -> dict[str, float]:
    """Milliseconds of the whole op and of its parts, for the last queries of a sequence."""
    op = attngen.load(SPEC).sparse
    indexer = op.kind.select.indexer
    q, kv = normal(1, QUERIES, 128, 576).transpose(1, 2), normal(1, 1, length, 576)
    index = {
        "index_q": normal(1, QUERIES, indexer.heads, indexer.head_dim).transpose(1, 2),
        "index_k": normal(1, length, indexer.head_dim),
        "index_weights": normal(1, QUERIES, indexer.heads),
    }
    indices = op.select(**index)
    found = timed({"sparse": lambda: op(q, kv, **index), "attend": lambda: op(q, kv, indices=indices)})
    return {**found, "select": max(found["sparse"] - found["attend"], 0.0)}


@torch.no_grad()
def measure_dense(length: int) -> dict[str, float]:
    """Milliseconds of dense attention of the same layer and queries."""
    op = attngen.load(parse_spec(DENSE)).attention
    heads = (normal(1, QUERIES, 128, 192), normal(1, length, 128, 192), normal(1, length, 128, 128))
    calls = {"dense": lambda: op(*(x.transpose(1, 2) for x in heads))}
    if (peer := fa3()) is not None:
        calls["dense_fa3"] = lambda: peer(*heads, softmax_scale=op.kind.scale, causal=True)
    return timed(calls)


def table(data: dict) -> str:
    """A line for each length, in microseconds a token."""
    names = [name for name in ("select", "attend", "sparse", "dense", "dense_fa3") if name in data["lengths"][0]]
    lines = ["  ".join(f"{name:>9}" for name in ("keys", *names, "dense/sparse"))]
    for row in data["lengths"]:
        cells = [f"{row[name] / QUERIES * 1e3:9.2f}" for name in names]
        best = min(row[name] for name in names if name.startswith("dense"))
        lines.append("  ".join([f"{row['keys']:>9}", *cells, f"{best / row['sparse']:12.2f}"]))
    return "\n".join(lines)


def crossover(rows: list[dict], name: str) -> float | None:
    """The length from which sparse attention is faster than ``name``, between two that were measured."""
    gains = [(row["keys"], row[name] / row["sparse"]) for row in rows if name in row]
    for (short, low), (long, high) in pairwise(gains):
        if low < 1 <= high:
            return short * (long / short) ** ((1 - low) / (high - low))
    return None


def draw(data: dict, path: Path) -> None:
    """Microseconds a token over length: the parts of sparse attention stacked, dense attention as lines."""
    from matplotlib.figure import Figure

    rows = data["lengths"]
    keys = [row["keys"] for row in rows]
    token = {name: [row[name] / QUERIES * 1e3 for row in rows] for name in rows[0] if name != "keys"}
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.stackplot(keys, token["attend"], token["select"], colors=("#1f6feb", "#8db8f5"), labels=PARTS)
    axes.plot(keys, token["sparse"], color="#0b3d91", lw=1.5, marker="o", ms=3, label="sparse, the op")
    for name, (label, colour) in SYSTEMS.items():
        if name in token:
            axes.plot(keys, token[name], color=colour, lw=1.8, marker="o", ms=3, label=label)
    best = "dense_fa3" if "dense_fa3" in token and min(token["dense_fa3"]) < min(token["dense"]) else "dense"
    if (length := crossover(rows, best)) is not None:
        axes.axvline(length, color="#57606a", lw=0.8, ls=":")
        axes.annotate(f"sparse is faster\nfrom {length:,.0f} keys", (length, axes.get_ylim()[1]), (6, -26),
                      textcoords="offset points", fontsize=8, color="#57606a")  # fmt: skip
    last = rows[-1]
    gain = min(last[name] for name in SYSTEMS if name in last) / last["sparse"]
    title = f"One DeepSeek-V3.2 layer, prefill: {gain:.1f} times dense attention's speed at {keys[-1]:,} keys"
    axes.set_title(f"{title}\n{data['device']}", fontsize=10)
    axes.set_xscale("log", base=2)
    axes.set_xticks(keys, [f"{n // 1024}K" for n in keys])
    axes.set_xlabel("keys before and among the last 4096 tokens")
    axes.set_ylabel("microseconds a token")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("deepseek-prefill.json"), help="where figures are kept")
    parser.add_argument("--picture", type=Path, help="a PNG or SVG to draw")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help=f"keys, at least {QUERIES}")
    parser.add_argument("--draw", action="store_true", help="only draw what --data has")
    chosen = parser.parse_args()
    if not chosen.draw and torch.cuda.is_available():
        lengths = sorted(chosen.lengths)
        rows = [{"keys": length, **measure_sparse(length), **measure_dense(length)} for length in lengths]
        data = {"device": torch.cuda.get_device_name(), "queries": QUERIES, "unit": "ms", "lengths": rows}
        chosen.data.parent.mkdir(parents=True, exist_ok=True)
        chosen.data.write_text(json.dumps(data, indent=1) + "\n")
    elif not chosen.data.is_file():
        raise SystemExit(f"there is no GPU here, and no {chosen.data} to draw from")
    data = json.loads(chosen.data.read_text())
    print(table(data))
    if chosen.picture is not None:
        draw(data, chosen.picture)


if __name__ == "__main__":
    main()
