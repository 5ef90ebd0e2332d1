#!/usr/bin/env python
# diffusers declares its configurations as plain dictionaries, and torch overloads `Module.to` incompletely.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
"""Cost of UniCon's attention: calls with pairs and calls of the plain UNet on the same rows, alternating in one run.

    python benchmarks/engine.py --rows 8 --rounds 10
    python benchmarks/engine.py --shape sd15 --device cuda --dtype float16 --rows 16 --compile

Prints the median ratio of the time of every form to that of the plain UNet. The overhead of launching many small
operations is larger for small shapes. With --compile, also the compiled inference form, its rate and that of a matrix
product, and one pair alone, which is captured as a CUDA graph on a GPU.
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
from torch.utils.flop_counter import FlopCounterMode

from unicon.adapters.config import AdapterConfig
from unicon.adapters.merge import merge_adapters
from unicon.adapters.unet import add_adapter
from unicon.compilation.compiled import Compilation
from unicon.compilation.policy import CompileSettings
from unicon.one_way import split
from unicon.pairs import Pairs
from unicon.unet_call import run_unet

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
COMPILED, MATRIX = "inference form, compiled", "matrix product"
MATRIX_SIDE = {"cuda": 8192, "cpu": 1024}


def main() -> None:
    """Measure, print, and optionally write the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="mini")
    parser.add_argument("--rows", type=int, default=8, help="rows per call, half of them images")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true", help="also measure compiled calls and CUDA graphs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    forms = build(options)
    times = measure(forms, options)
    result = {
        "command": " ".join(sys.argv),
        "date": date.today().isoformat(),
        "hardware": hardware(options.device),
        "torch": torch.__version__,
        "median time over the plain UNet": {
            name: round(median_ratio(t, times["plain UNet"]), 3) for name, t in times.items()
        },
        "median milliseconds": {name: round(1000 * statistics.median(t), 2) for name, t in times.items()},
        **(rates(forms, times) if options.compile else {}),
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
        **one_way(merged, latents, timesteps, text),
        **(compiled(merged, latents, timesteps, text) if options.compile else {}),
    }


@torch.no_grad()
def one_way(
    merged: UNet2DConditionModel, latents: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor
) -> dict[str, Callable[[], torch.Tensor]]:
    """The two calls of one-way sampling: that of the images, once for all steps, and that of a step."""
    images = len(latents) // 2
    pairs = Pairs.one_to_one(images, "depth", weight_to_image=0.0)
    static, moving = split(pairs, {row: row for row in range(images)}, {"depth": "fused"})
    inputs = [tensor[:images] for tensor in (latents, timesteps, text)]
    features = run_unet(merged, static, *inputs)
    rest = [tensor[images:] for tensor in (latents, timesteps, text)]
    return {
        "inference form, one-way: images once": lambda: run_unet(merged, static, *inputs)[0],
        "inference form, one-way: a step": lambda: run_unet(merged, moving, *rest, *features)[0],
    }


def compiled(
    merged: UNet2DConditionModel, latents: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor
) -> dict[str, Callable[[], torch.Tensor]]:
    """The compiled form, one pair alone without and with a CUDA graph, and a product of large matrices."""
    always, auto = (Compilation(CompileSettings(mode=mode), latents.device) for mode in ("always", "auto"))
    own = copy.deepcopy(merged)  # compiling converts the weights
    layout = Pairs.one_to_one(len(latents) // 2, "depth").layout
    one_pair = Pairs.one_to_one(1, "depth").layout
    two = [tensor[:2] for tensor in (latents, timesteps, text)]
    side = MATRIX_SIDE[latents.device.type]
    matrix = torch.randn(side, side, device=latents.device, dtype=latents.dtype)
    return {
        COMPILED: lambda: always.run_unet(own, layout, latents, timesteps, text)[0],
        "one pair alone, inference form": lambda: run_unet(merged, one_pair, *two)[0],
        "one pair alone, CUDA graph on a GPU": lambda: auto.run_unet(merged, one_pair, *two)[0],
        MATRIX: lambda: matrix @ matrix,
    }


def rates(forms: dict[str, Callable[[], torch.Tensor]], times: dict[str, list[float]]) -> dict[str, object]:
    """The operations of a call and the rates of the compiled form and of a matrix product."""
    tera = {COMPILED: counted(forms["inference form (merged)"]) / 1e12, MATRIX: counted(forms[MATRIX]) / 1e12}
    rate = {name: tera[name] / statistics.median(times[name]) for name in tera}
    return {
        "TFLOP of a call": round(tera[COMPILED], 4),
        "TFLOP/s": {name: round(value, 3) for name, value in rate.items()},
        "compiled form over matrix product, TFLOP/s": round(rate[COMPILED] / rate[MATRIX], 3),
    }


@torch.no_grad()
def counted(call: Callable[[], torch.Tensor]) -> float:
    """The floating-point operations of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


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
