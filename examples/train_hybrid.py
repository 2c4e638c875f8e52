"""A small decoder with windows and global layers learns the King James Bible by attngen and by SDPA, side by side.

    python examples/train_hybrid.py [--attention attngen sdpa wide] [--device cuda] [--steps 300] [--length 2048]
                                    [--batch 8] [--dtype bfloat16] [--json hybrid.json] [--out hybrid.svg] [--draw]

Which layers see what is in hybrid-tiny.yaml: 8 layers of 6 heads, 13 million weights. Embeddings are of bytes,
positions are rotary, norms are RMSNorm and the feed-forward is SwiGLU. The same weights see the same texts in the same
order with each attention: ``attngen``; ``sdpa``, scaled_dot_product_attention with masks of queries x keys; and
``wide``, the same in the next wider dtype. What those two differ by is rounding alone: the measure for attngen's.

In bfloat16 weights and residual stream are float32 (autocast). A CPU is slow at this: --steps 5 --length 64 shows it.
Exit status 1 when attngen and sdpa differ by more than rounding explains.
"""

import argparse
import math
import sys
from pathlib import Path

import torch
from king_james import verses
from options import add_device, dtype_of, keep, kept, name_of, picture
from torch.nn.functional import cross_entropy, scaled_dot_product_attention, silu

from attngen.nn import Attention
from attngen.spec import Kind, Spec, load_spec

SPEC = Path(__file__).with_name("hybrid-tiny.yaml")
SEED = 0
BYTES = 256
RATE, WARM_UP, LAST_RATE = 1e-3, 20, 0.1  # of learning: the highest, after so many steps, and at last as a share of it
DECAY, BETAS, CLIP = 0.1, (0.9, 0.95), 1.0
LAST = 10  # steps whose mean is the final loss
MARGIN = 3  # times the mean difference that rounding alone makes: 2**0.5, as both round, and as much again by chance
TITLES = {"attngen": "attngen", "sdpa": "SDPA", "wide": "SDPA, wider attention"}
COLOURS = {"attngen": "#1f6feb", "sdpa": "#8c959f", "wide": "#bf8700"}
WIDER = {torch.bfloat16: torch.float32, torch.float32: torch.float64}


class Rotary(torch.nn.Module):
    """Rotary embedding of positions 0, 1, and so on (Su et al., arXiv:2104.09864)."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        angles = torch.arange(length)[:, None, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.turned(q), self.turned(k)

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, -1)  # (batch, sequence, heads, half of head_dim)
        turned = (first * self.cos - second * self.sin, second * self.cos + first * self.sin)
        return torch.cat(turned, -1).to(x.dtype)


class Sdpa(torch.nn.Module):
    """What ``Attention`` does, by scaled_dot_product_attention in ``dtype``."""

    def __init__(self, kind: Kind, dim: int, rotary: Rotary, length: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.kind, self.dtype, self.rotary = kind, dtype, rotary
        self.q_proj = torch.nn.Linear(dim, kind.heads.query * kind.head_dim.qk, bias=False)
        self.k_proj = torch.nn.Linear(dim, kind.heads.kv * kind.head_dim.qk, bias=False)
        self.v_proj = torch.nn.Linear(dim, kind.heads.kv * kind.head_dim.v, bias=False)
        self.o_proj = torch.nn.Linear(kind.heads.query * kind.head_dim.v, dim, bias=False)
        self.register_buffer("mask", mask_of(kind, length), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.kind.heads
        q = self.q_proj(x).unflatten(-1, (heads.query, -1))
        k, v = (projection(x).unflatten(-1, (heads.kv, -1)) for projection in (self.k_proj, self.v_proj))
        q, k = self.rotary(q, k)
        k, v = (tensor.repeat_interleave(heads.group, 2) for tensor in (k, v))
        with torch.autocast(x.device.type, enabled=False):
            qkv = (tensor.transpose(1, 2).to(self.dtype) for tensor in (q, k, v))
            out = scaled_dot_product_attention(*qkv, attn_mask=self.mask, scale=self.kind.scale)
        return self.o_proj(out.transpose(1, 2).flatten(2).to(v.dtype))


def mask_of(kind: Kind, length: int) -> torch.Tensor:
    """Which keys each query sees: bool (length, length)."""
    i, j = torch.arange(length)[:, None], torch.arange(length)
    seen = j <= i
    return seen if kind.window is None else seen & (i - j <= kind.window.left)


class Block(torch.nn.Module):
    """A layer: attention and SwiGLU (Shazeer, arXiv:2002.05202), each after a norm and added to the stream."""

    def __init__(self, attention: torch.nn.Module, dim: int) -> None:
        super().__init__()
        hidden = 8 * dim // 3
        self.attention = attention
        self.attention_norm, self.norm = torch.nn.RMSNorm(dim), torch.nn.RMSNorm(dim)
        self.gate, self.up = (torch.nn.Linear(dim, hidden, bias=False) for _ in range(2))
        self.down = torch.nn.Linear(hidden, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x))
        normed = self.norm(x)
        return x + self.down(silu(self.gate(normed)) * self.up(normed))


class Decoder(torch.nn.Module):
    """Logits of the next byte."""

    def __init__(self, spec: Spec, attention: str, length: int, dtype: torch.dtype) -> None:
        super().__init__()
        kind = spec.kinds[0]
        dim = kind.heads.query * kind.head_dim.qk
        rotary = Rotary(kind.head_dim.qk, length)
        self.embedding = torch.nn.Embedding(BYTES, dim)
        self.blocks = torch.nn.Sequential()
        for layer, name in enumerate(spec.layer_kinds):
            if attention == "attngen":
                attending = Attention(spec, layer=layer, dim=dim, rotary=rotary)
            else:
                attends_in = WIDER[dtype] if attention == "wide" else dtype
                attending = Sdpa(spec.kind(name), dim, rotary, length, attends_in)
            self.blocks.append(Block(attending, dim))
        self.norm = torch.nn.RMSNorm(dim)
        self.head = torch.nn.Linear(dim, BYTES, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.embedding(ids))))

    @torch.no_grad()
    def draw_weights(self, seed: int) -> None:
        """Normal, 0.02; what adds to the stream less, by the root of how often that is done (GPT-2)."""
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                adds = name.endswith(("o_proj.weight", "down.weight"))
                weight.normal_(0, 0.02 / (2 * len(self.blocks)) ** 0.5 if adds else 0.02, generator=generator)


def rate(step: int, steps: int) -> float:
    """Of learning at a step, as a share of the highest: a line up, then a cosine down."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    done = (step - WARM_UP) / max(steps - WARM_UP, 1)
    return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * done)) / 2


def train(attention: str, text: torch.Tensor, steps: int, length: int, batch: int, dtype: torch.dtype) -> list[float]:
    """The loss of each step."""
    device = text.device
    spec = load_spec(SPEC).with_dtype(str(dtype).removeprefix("torch."))
    model = Decoder(spec, attention, length, dtype)
    model.draw_weights(SEED)
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    order = torch.Generator().manual_seed(SEED)
    losses = []
    for step in range(steps):
        starts = torch.randint(len(text) - length, (batch, 1), generator=order)
        ids = text[(starts + torch.arange(length + 1)).to(device)].long()
        with torch.autocast(device.type, dtype, enabled=dtype == torch.bfloat16):
            logits = model(ids[:, :-1])
        loss = cross_entropy(logits.double().flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        if step % 50 == 0 or step == steps - 1:
            print(f"{attention}: step {step}, loss {loss:.4f}", flush=True)
    return torch.stack(losses).tolist()


def differences(losses: dict[str, list[float]], attention: str) -> list[float]:
    """How far the loss of each step is from that by SDPA."""
    return [abs(a - b) for a, b in zip(losses[attention], losses["sdpa"], strict=True)]


def final(losses: list[float]) -> float:
    return sum(losses[-LAST:]) / len(losses[-LAST:])


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def described(data: dict) -> str:
    return f"{data['device']}, {data['dtype']}, {data['batch']} x {data['length']} bytes a step"


def table(data: dict) -> str:
    """Final losses, and the differences from SDPA."""
    lines = [described(data), f"{'':24}{f'last {LAST}':>12}{'largest difference':>20}{'mean':>10}"]
    for name, losses in data["losses"].items():
        line = f"{TITLES[name]:24}{final(losses):12.5f}"
        if name != "sdpa" and "sdpa" in data["losses"]:
            apart = differences(data["losses"], name)
            line += f"{max(apart):20.1e}{mean(apart):10.1e}"
        lines.append(line)
    return "\n".join(lines)


def explained(losses: dict[str, list[float]]) -> bool:
    """Whether attngen and SDPA differ by no more than rounding explains."""
    ours, rounding = (mean(differences(losses, name)) for name in ("attngen", "wide"))
    return ours <= MARGIN * rounding


def draw(data: dict, path: Path) -> None:
    """The curves over each other, and below them how far they are apart."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    losses = data["losses"]
    last = {name: final(values) for name, values in losses.items()}
    with rc_context({"svg.hashsalt": "attngen"}):
        figure = Figure(figsize=(8, 6), layout="constrained")
        curves, apart = figure.subplots(2, sharex=True, height_ratios=(1.6, 1))
        for name in ("sdpa", "attngen"):
            width = 3.5 if name == "sdpa" else 1.2
            curves.plot(losses[name], color=COLOURS[name], lw=width, label=f"{TITLES[name]}, at last {last[name]:.4f}")
        for name, label in (("wide", "SDPA and SDPA of wider attention: rounding"), ("attngen", "attngen and SDPA")):
            apart.plot(differences(losses, name), color=COLOURS[name], lw=1.2, label=label)
        curves.set_title(f"A hybrid decoder learns the King James Bible\n{described(data)}", fontsize=10)
        curves.set_ylabel("loss, nats a byte")
        apart.set_ylabel("difference of the losses")
        apart.set_yscale("log")
        apart.set_xlabel("step")
        apart.set_xlim(0, len(losses["sdpa"]) - 1)
        for axes in (curves, apart):
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attention", nargs="+", choices=TITLES, default=list(TITLES), help="default: all three")
    add_device(parser)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--length", type=int, help="bytes of a text (256 on a CPU, 2048 on a GPU)")
    parser.add_argument("--batch", type=int, help="texts of a step (2 on a CPU, 8 on a GPU)")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], help="default: float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--json", type=Path, default=Path("hybrid.json"), help="where the losses are kept")
    parser.add_argument("--out", type=picture, help="an SVG or PNG to draw, of all three")
    parser.add_argument("--draw", action="store_true", help="only show what --json has")
    options = parser.parse_args(arguments)
    if not options.draw:
        on_cpu = options.device == "cpu"
        length = (256 if on_cpu else 2048) if options.length is None else options.length
        batch = (2 if on_cpu else 8) if options.batch is None else options.batch
        if min(options.steps, length, batch) < 1:
            parser.error("--steps, --length and --batch are at least 1")
        dtype = dtype_of(options)
        text = torch.frombuffer(bytearray("\n".join(verses()).encode()), dtype=torch.uint8).to(options.device)
        losses = {name: train(name, text, options.steps, length, batch, dtype) for name in options.attention}
        data = {
            "device": name_of(options.device),
            "dtype": str(dtype).removeprefix("torch."),
            "length": length,
            "batch": batch,
        }
        keep(options.json, {**data, "losses": losses})
    data = kept(parser, options.json)
    print(table(data))
    if data["losses"].keys() != TITLES.keys():
        return 0
    if options.out is not None:
        draw(data, options.out)
    if explained(data["losses"]):
        print("attngen and SDPA differ by what rounding explains")
        return 0
    print(f"attngen and SDPA DIFFER by more than {MARGIN} times what rounding does")
    return 1


if __name__ == "__main__":
    sys.exit(main())
