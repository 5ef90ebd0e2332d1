#!/usr/bin/env python
# diffusers declares tuples of any length as tuples of one item.
# pyright: reportArgumentType=false
"""Floating-point operations of an estimate, counted on tensors without data, in the shape of Stable Diffusion 1.5.

    python benchmarks/flops.py --json benchmarks/results/flops-sd15.json

Counts the library's own sampling of one image of 512 x 512 pixels, from pixels to decoded maps, with
`torch.utils.flop_counter`: a multiplication and an addition are two operations. Every step makes the same call of the
UNet, so many steps are computed from the counts of one. Adapters are counted with both kinds of output projection:
"fused" ones, as in the official depth adapter, mix both sides and need more attention with `--one-way`.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from diffusers import AutoencoderTiny, DDIMScheduler
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.random_sd15 import random_parts
from unicon import UniCon
from unicon.adapters.config import AdapterConfig, Projection
from unicon.adapters.merge import merge_in_place
from unicon.adapters.unet import add_adapter
from unicon.autoencoders import encode
from unicon.batches import sample_batch
from unicon.decoders import MapDecoder, small_decoder_config
from unicon.options import SamplingOptions
from unicon.requests import GenerationPlan, RowRequest
from unicon.sampling import step_table
from unicon.training.mini.text import train_tokenizer
from unicon.unet_call import run_unet

SIDE_PX = 512
TOKENS = 77
CONDITIONS = ("depth", "edge", "pose")
PROJECTIONS: tuple[Projection, ...] = ("fused", "separate")
MANY_STEPS = 20


def main() -> None:
    """Count, print, and optionally write the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = {
        "command": " ".join(sys.argv),
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "shape": f"Stable Diffusion 1.5, {SIDE_PX} x {SIDE_PX} pixels; TFLOP per image, autoencoder included",
        **{projection: counts(projection) for projection in PROJECTIONS},
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def counts(projection: Projection) -> dict[str, float]:
    """TFLOP per image in every mode, with adapters of one kind of output projection."""
    (pair,), (static, step) = (unet_calls(projection, 1, one_way=one_way) for one_way in (False, True))
    together = sum(unet_calls(projection, len(CONDITIONS), one_way=True))
    found = {}
    for name, decoder in decoders().items():
        beside = encoding() + decoder
        found[f"two-way, {MANY_STEPS} steps, {name}"] = MANY_STEPS * pair + beside
        found[f"one-way, {MANY_STEPS} steps, {name}"] = static + MANY_STEPS * step + beside
        found[f"two-way, 1 step, {name}"] = pair + beside
        found[f"one-way, 1 step, {name}"] = static + step + beside
        one_pass = encoding() + together + len(CONDITIONS) * decoder
        found[f"three conditions in one pass, one-way, 1 step, {name}"] = one_pass
        found[f"the same over three two-way runs, {name}"] = one_pass / (len(CONDITIONS) * (pair + beside))
        found[f"the same over three one-way runs, {name}"] = one_pass / (len(CONDITIONS) * (static + step + beside))
    return {name: round(value, 3) for name, value in found.items()}


def unet_calls(projection: Projection, num_conditions: int, *, one_way: bool) -> list[float]:
    """TFLOP of every call of the UNet in one step, from the latents of one image to the latents of its maps."""
    model, size, calls = copy.copy(sd15(projection)), (SIDE_PX, SIDE_PX), []

    def run(*arguments: Any) -> tuple[torch.Tensor, ...]:
        results: list[tuple[torch.Tensor, ...]] = []
        calls.append(counted(lambda: results.append(run_unet(*arguments))))
        return results[0]

    model.run_unet = run
    image = Image.new("RGB", size)
    plan = GenerationPlan(
        adapters=CONDITIONS[:num_conditions],
        table=step_table.estimation(1, num_conditions, clean_image=True),
        given=(0,),
        separate=True,
        sampling=SamplingOptions(num_inference_steps=1, guidance_scale=1.0, one_way=one_way),
    )
    request = RowRequest(working_size=size, size=size, seed=0, image=image)
    sample_batch(model, [request], plan, [None] * (1 + num_conditions), {(id(image), size): (image, latents()[0])})
    return calls


def latents() -> torch.Tensor:
    """Latents of one image, without data."""
    return torch.empty(1, 4, SIDE_PX // 8, SIDE_PX // 8, device="meta")


@cache
def encoding() -> float:
    """TFLOP from the pixels of one image to its latents."""
    return counted(lambda: encode(sd15("fused").vae, torch.empty(1, 3, SIDE_PX, SIDE_PX, device="meta")))


@cache
def decoders() -> dict[str, float]:
    """TFLOP from latents to one map, by decoder."""
    with torch.device("meta"):
        small, tiny = MapDecoder(**small_decoder_config(4, 8)), AutoencoderTiny()
    return {
        "full decoder": counted(lambda: sd15("fused").vae.decode(latents())),
        "AutoencoderTiny decoder": counted(lambda: tiny.decode(latents())),
        "small decoder of maps": counted(lambda: small(latents())),
    }


@torch.no_grad()
def counted(call: Callable[[], Any]) -> float:
    """TFLOP of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e12


@cache
def sd15(projection: Projection) -> UniCon:
    """A model without data, with an adapter for each condition."""
    with TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(["depth_map, an image"], Path(folder))
    tokenizer.model_max_length = TOKENS
    parts = random_parts(tokenizer, "meta")
    with torch.device("meta"):
        for name in CONDITIONS:
            add_adapter(parts["unet"], AdapterConfig(name=name, projection=projection))
    merge_in_place(parts["unet"])
    return UniCon(**parts, tokenizer=tokenizer, scheduler=DDIMScheduler(), description={})


if __name__ == "__main__":
    main()
