"""What the command lines of the scripts beside this have in common."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``: a GPU where there is one."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=usable, default=default, help=f"default: {default}, on this machine")


def usable(device: str) -> str:
    """The device, which a machine without a GPU may lack."""
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"{device}: cpu or cuda would be right")
    if kind == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError(f"{device}: this machine has no GPU that PyTorch can use")
    return device


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """``--dtype``: what ``dtype_of`` says."""
    words = "default: bfloat16 on a GPU, float32 on a CPU"
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help=words)


def dtype_of(options: argparse.Namespace) -> torch.dtype:
    """What is asked for, else bfloat16 on a GPU, and float32 on a CPU."""
    return getattr(torch, options.dtype or ("float32" if options.device == "cpu" else "bfloat16"))


def picture(text: str) -> Path:
    """The path of a picture, of a format that is drawn."""
    path = Path(text)
    if path.suffix not in (".svg", ".png"):
        raise argparse.ArgumentTypeError(f"{text}: a name that ends in .svg or .png would be right")
    return path


def name_of(device: str) -> str:
    """The GPU's name, or that it is none."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"


def keep(path: Path, data: dict[str, Any]) -> None:
    """Write what a run found, for ``kept``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n")


def kept(parser: argparse.ArgumentParser, path: Path) -> dict[str, Any]:
    """What ``--json`` has, of this run or of an earlier one."""
    if not path.exists():
        parser.error(f"--draw shows what {path} has, which does not exist")
    return json.loads(path.read_text())
