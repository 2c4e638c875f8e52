"""What a training step of ModernBERT-base takes by attngen and by SDPA: milliseconds, and the most memory.

    python examples/modernbert_training.py [--attention attngen sdpa flash] [--device cuda] [--length 8192]
                                           [--batch 1] [--steps 10] [--json modernbert-training.json]

All 22 layers, built from the config with random weights, learn to say which words of the King James Bible are masked,
30% of them, as ModernBERT did (Warner et al., arXiv:2412.13663); AdamW, and on a GPU autocast to bfloat16. ``sdpa`` is
how transformers runs the model: windows are masks of queries x keys. ``flash`` lets every layer see all, which is
another model and slower, but SDPA then runs FlashAttention and keeps no mask: the least memory that attention needs.
Exit status 1 when attngen takes more than 2% more memory than that.
"""

import argparse
import gc
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
import transformers
from king_james import verses, word_ids
from options import add_device, keep, name_of
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import ModernBertConfig, ModernBertForMaskedLM

from attngen.integrations.transformers import register
from attngen.spec import load_spec

SPEC = Path(__file__).with_name("modernbert-base.yaml")
TITLES = {"attngen": "attngen", "sdpa": "SDPA", "flash": "SDPA's FlashAttention, no windows"}
SEES_ALL = {"full_attention": None, "sliding_attention": None}  # the masks of a model's layers
SEED, MASKED, MASK_ID = 0, 0.3, 4
IGNORED = -100  # a label of no word
WARM_UP = 2  # steps that are not counted: kernels are compiled, the optimizer makes its state
MARGIN = 1.02  # attngen's memory over FlashAttention's


def batch(length: int, size: int, vocabulary: int) -> dict[str, torch.Tensor]:
    """Texts without padding, some of their words masked, and which words those were."""
    words = torch.tensor(word_ids(" ".join(verses()), vocabulary))
    words = words.repeat(-(-length * size // len(words)))[: length * size].view(size, length)
    masked = torch.rand(words.shape, generator=torch.Generator().manual_seed(SEED)) < MASKED
    return {"input_ids": words.masked_fill(masked, MASK_ID), "labels": words.masked_fill(~masked, IGNORED)}


def train(attention: str, device: torch.device, inputs: dict[str, torch.Tensor], steps: int) -> dict:
    """The median step in milliseconds, the most memory in MiB (of a GPU), and the last step's loss."""
    gc.collect()  # the model before this one
    on_gpu = device.type == "cuda"
    torch.manual_seed(SEED)
    model = ModernBertForMaskedLM(ModernBertConfig(sparse_prediction=True)).to(device)
    model.set_attn_implementation(register(load_spec(SPEC)) if attention == "attngen" else "sdpa")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    masks = {"attention_mask": SEES_ALL} if attention == "flash" else {}
    times = []
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION) if attention == "flash" else nullcontext():
        for step in range(WARM_UP + steps):
            if on_gpu and step == WARM_UP:
                torch.cuda.reset_peak_memory_stats(device)
            began = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
                loss = model(**inputs, **masks).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            last = loss.item()  # waits for the step
            times.append(time.perf_counter() - began)
    return {
        "step_ms": round(1e3 * statistics.median(times[WARM_UP:]), 2),
        "peak_mib": torch.cuda.max_memory_allocated(device) >> 20 if on_gpu else None,
        "loss": round(last, 5),
    }


def table(data: dict) -> str:
    """A line for each attention."""
    lines = [f"{data['device']}, {data['batch']} x {data['length']} words a step"]
    lines.append(f"{'':34}{'step, ms':>10}{'memory, MiB':>13}{'last loss':>11}")
    for name, taken in data["attentions"].items():
        memory = "-" if taken["peak_mib"] is None else taken["peak_mib"]
        lines.append(f"{TITLES[name]:34}{taken['step_ms']:10.1f}{memory:>13}{taken['loss']:11.4f}")
    return "\n".join(lines)


def too_much(attentions: dict[str, dict]) -> bool:
    """Whether attngen takes more memory than FlashAttention, where both were measured."""
    peaks = {name: taken["peak_mib"] for name, taken in attentions.items()}
    ours, least = peaks.get("attngen"), peaks.get("flash")
    return ours is not None and least is not None and ours > MARGIN * least


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attention", nargs="+", choices=TITLES, default=list(TITLES), help="default: all three")
    add_device(parser)
    parser.add_argument("--length", type=int, help="words of a text (128 on a CPU, 8192 on a GPU)")
    parser.add_argument("--batch", type=int, default=1, help="texts of a step")
    parser.add_argument("--steps", type=int, default=10, help="that are counted, after two that are not")
    parser.add_argument("--json", type=Path, help="where to keep what was measured")
    options = parser.parse_args(arguments)
    if options.length is None:
        options.length = 128 if options.device == "cpu" else 8192
    if min(options.length, options.batch, options.steps) < 1:
        parser.error("--length, --batch and --steps are at least 1")
    device = torch.device(options.device)
    texts = batch(options.length, options.batch, ModernBertConfig().vocab_size)
    inputs = {name: tensor.to(device) for name, tensor in texts.items()}
    data = {
        "device": name_of(options.device),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "length": options.length,
        "batch": options.batch,
        "attentions": {name: train(name, device, inputs, options.steps) for name in options.attention},
    }
    print(table(data))
    if options.json is not None:
        keep(options.json, data)
    if too_much(data["attentions"]):
        print(f"attngen takes MORE than {MARGIN} times FlashAttention's memory")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
