#!/usr/bin/env python
# diffusers declares its configurations as plain dictionaries, and torch overloads `Module.to` incompletely.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
"""Cost of UniCon's attention: calls with pairs and calls of the plain UNet on the same rows, alternating in one run.

    python benchmarks/engine.py --rows 8 --rounds 10
    python benchmarks/engine.py --shape sd15 --device cuda --dtype float16 --rows 16

Prints the median ratio of the time of every form to that of the plain UNet. The overhead of launching many small
operations is larger for small shapes.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from diffusers import UNet2DConditionModel

from unicon.adapters.config import AdapterConfig
from unicon.adapters.merge import merge_adapters
from unicon.adapters.unet import add_adapter
from unicon.pairs import Pairs

SHAPES = {
    "mini": {
        "sample_size": 16,
        "block_out_channels": (64, 96, 128),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 128,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    },
    "sd15": {"sample_size": 64, "cross_attention_dim": 768},
}
TOKENS = 77


def main() -> None:
    """Measure, print, and optionally write the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="mini")
    parser.add_argument("--rows", type=int, default=8, help="rows per call, half of them images")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    times = measure(build(options), options)
    result = {
        "command": " ".join(sys.argv),
        "date": date.today().isoformat(),
        "hardware": hardware(options.device),
        "torch": torch.__version__,
        "median time over the plain UNet": {
            name: round(median_ratio(t, times["plain UNet"]), 3) for name, t in times.items()
        },
        "median milliseconds": {name: round(1000 * statistics.median(t), 2) for name, t in times.items()},
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def build(options: argparse.Namespace) -> dict[str, Callable[[], torch.Tensor]]:
    """Build one call of every form on the same rows."""
    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype)
    plain = UNet2DConditionModel(**SHAPES[options.shape]).to(options.device, dtype).eval()
    adapted = copy.deepcopy(plain)
    add_adapter(adapted, AdapterConfig(name="depth", rank=options.rank))
    size, channels = plain.config.sample_size, plain.config.in_channels
    place = {"device": options.device, "dtype": dtype}
    latents = torch.randn(options.rows, channels, size, size, **place)
    text = torch.randn(options.rows, TOKENS, plain.config.cross_attention_dim, **place)
    timesteps = torch.full((options.rows,), 500, device=options.device)
    pairs = Pairs.one_to_one(options.rows // 2, "depth")
    kwargs = {"cross_attention_kwargs": {"pairs": pairs}}
    merged = merge_adapters(adapted)
    channels_last = copy.deepcopy(merged).to(memory_format=torch.channels_last)
    return {
        "plain UNet": lambda: plain(latents, timesteps, text).sample,
        "training form (LoRA)": lambda: adapted(latents, timesteps, text, **kwargs).sample,
        "inference form (merged)": lambda: merged(latents, timesteps, text, **kwargs).sample,
        "inference form, channels last": lambda: channels_last(latents, timesteps, text, **kwargs).sample,
    }


@torch.no_grad()
def measure(forms: dict[str, Callable[[], torch.Tensor]], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of the call of every form in every round."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for round_number in range(options.rounds + 1):
        for name, call in forms.items():
            began = time.perf_counter()
            call()
            if options.device == "cuda":
                torch.cuda.synchronize()
            if round_number:  # the first round warms up
                times[name].append(time.perf_counter() - began)
    return times


def median_ratio(times: list[float], base: list[float]) -> float:
    """Return the median ratio of times in the same rounds."""
    return statistics.median(a / b for a, b in zip(times, base, strict=True))


def hardware(device: str) -> str:
    """Describe the processor."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
