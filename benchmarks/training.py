#!/usr/bin/env python3
# diffusers declares `from_pretrained` as returning a tuple too, and torch overloads `Module.to` incompletely.
# pyright: reportArgumentType=false, reportCallIssue=false
"""Rate of the joint training of `mini`: steps as they are and with a compiled UNet, alternating in one run.

    python benchmarks/training.py --batch-size 24 --rounds 3
    python benchmarks/training.py --device cuda --batch-size 512 --rounds 20 --compile --json training.json

A step has random latents of 128 x 128 pixels and updates all parameters. It trains either pairs of one adapter, or
estimates of three adapters in one step (`unicon.training.single_step`), a third of which are decoded. Prints the median
seconds and the pairs per second of every form.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from diffusers import AutoencoderKL
from torch.nn.attention import SDPBackend, sdpa_kernel

from unicon.files.folder import find_folder
from unicon.training.auxiliary_heads import ConditionHeads
from unicon.training.checkpoints import FolderCheckpoints
from unicon.training.fit import LossGradients
from unicon.training.fit_config import FitConfig
from unicon.training.mini.models import install_adapters, read_models
from unicon.training.mini.recipe import JOINT, MiniRecipe
from unicon.training.mini.train import trained_parameters
from unicon.training.models import TrainingModels
from unicon.training.pairs import LatentGroups, PairLatents, PairLoss, PairsLoss
from unicon.training.single_step import DrawnMaps, SingleStepLoss, SingleStepSampling
from unicon.training.trainer import Trainer

KINDS, DECODED = ("depth", "edge", "pose"), 1 / 3
CHANNELS, LATENT_PX, SIZE_PX, SCENES = 8, 16, 128, 1024
CAPTIONS = ("a red ball in a room", "a blue mannequin in a yard", "a green box in a room", "a yellow cone in a yard")
CONFIG = FitConfig(steps=1000, learning_rate=1e-4, matrix_learning_rate=1e-4)


class RandomMaps:
    """Random latents and maps on a device, as a `MapSource`."""

    def __init__(self, device: str) -> None:
        self.latents = torch.randn((SCENES, CHANNELS, LATENT_PX, LATENT_PX), device=device)
        self.maps = torch.rand((64, 3, SIZE_PX, SIZE_PX), device=device) * 2 - 1

    def draw_maps(self, generator: torch.Generator, batch_size: int) -> DrawnMaps:
        """See `MapSource`."""
        rows = torch.randint(64, (batch_size,), generator=generator).to(self.latents.device)
        captions = [CAPTIONS[row % len(CAPTIONS)] for row in range(batch_size)]
        each = dict.fromkeys(KINDS, self.latents[rows])
        return DrawnMaps(self.latents[rows], each, dict.fromkeys(KINDS, self.maps[rows]), captions)


def losses_of(models: TrainingModels, heads: ConditionHeads, device: str, batch_size: int) -> dict[str, PairsLoss]:
    """Return the loss of pairs, and that of estimates in a single step with half as many images."""
    latents = RandomMaps(device).latents
    captions = CAPTIONS * (SCENES // len(CAPTIONS))
    group = PairLatents(latents, latents, captions, dict.fromkeys(KINDS, latents))
    sampling = replace(JOINT, batch_size=batch_size)
    pairs = PairLoss(models, "depth", "depth_map, ", LatentGroups([group], device), sampling, heads)
    vae = AutoencoderKL.from_pretrained(find_folder("mini") / "vae", torch_dtype=torch.float32).requires_grad_(False)
    single = SingleStepSampling(batch_size=max(1, batch_size // 2), decoded_fractions=dict.fromkeys(KINDS, DECODED))
    return {
        "pairs": pairs,
        "single step": SingleStepLoss(models, vae.to(device), KINDS, RandomMaps(device), single, heads),
    }


def step_of(models: TrainingModels, heads: ConditionHeads, loss: PairsLoss, device: str) -> Callable[[int], None]:
    """Return a function that takes the step of a number and waits for it."""
    config = replace(CONFIG, autocast_dtype="bfloat16" if device.startswith("cuda") else None)
    nowhere = FolderCheckpoints(Path(tempfile.gettempdir()) / "no-checkpoint-of-a-benchmark")
    trainer = Trainer(trained_parameters(models, heads), config, nowhere)
    gradients = LossGradients(loss, config, trainer.device)

    def step(number: int) -> None:
        trainer.step = number
        trainer.take_step(gradients)
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    return step


def measure(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the median seconds of a step and the pairs per second by form, with forms alternating in every round."""
    folder, steps, sizes = find_folder("mini"), {}, {}
    for compiles in (False, True) if options.compile else (False,):
        models = replace(read_models(folder), compiles=compiles)
        models.unet.to(options.device, memory_format=torch.channels_last)
        models.text_encoder.to(options.device)
        heads = ConditionHeads(models.unet, MiniRecipe().heads)
        install_adapters(models.unet, KINDS, MiniRecipe().rank, folder)
        for parameter in models.named_parameters().values():
            parameter.requires_grad_(True)
        for name, loss in losses_of(models, heads, options.device, options.batch_size).items():
            form = f"{name}, compiled" if compiles else name
            steps[form], sizes[form] = step_of(models, heads, loss, options.device), loss.pairs_a_step
            steps[form](0)
    seconds: dict[str, list[float]] = {form: [] for form in steps}
    for number in range(1, options.rounds + 1):
        for form, step in steps.items():
            began = time.perf_counter()
            step(number)
            seconds[form].append(time.perf_counter() - began)
    medians = {form: statistics.median(values) for form, values in seconds.items()}
    return {
        form: {"seconds": round(median, 4), "pairs_a_second": round(sizes[form] / median, 1)}
        for form, median in medians.items()
    }


def main() -> None:
    """Measure, print, and optionally write the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=24, help="pairs in a step of pairs (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU (%(default)s)")
    parser.add_argument("--compile", action="store_true", help="also measure compiled calls")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with sdpa_kernel(SDPBackend.MATH) if options.device == "cpu" else nullcontext():
        found = measure(options)
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.processor() or "CPU"
    result = {
        "command": " ".join(["python", "benchmarks/training.py", *sys.argv[1:]]),
        "date": date.today().isoformat(), "device": name, "torch": torch.__version__,
        "batch_size": options.batch_size, "forms": found,
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
