"""Official sampling, as selected on the command line: the golden trajectories through the task and actor of each job.

Encoded inputs and noise are those of the golden files; everything between them is the real code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from jobs import estimate, generate_pairs, synthesize
from pipelines.engine import blocks
from pipelines.images.codec import pack
from pipelines.stages.compute import ComputeRows
from pipelines.stages.task import COMMON
from tests.support.fake_depth import FakeDepth
from tests.support.paths import GOLDEN
from tests.support.run_fake_job import identity
from tests.support.stages import make_chunk
from unicon import UniCon
from unicon.adapters.official import load_official
from unicon.compilation.compiled import Compilation
from unicon.limits import ModelLimits
from unicon.options import SamplingOptions

torch.set_num_threads(1)  # tiny models are slower on several threads
SIZE_PX = 32
"""16 latent pixels, with a VAE that halves the size."""
BASE = ["--output", "x", "--seed", "3"]
ESTIMATE = ["--input", "x", *BASE, "--condition", "depth", "--published"]
FOLLOW = ["--input", "x", *BASE, "--published"]
CASES: dict[str, tuple[Any, list[str]]] = {
    "image_to_condition": (estimate, [*ESTIMATE, "--steps", "10", "--guidance-scale", "3"]),
    "image_to_condition_no_cfg": (estimate, [*ESTIMATE, "--steps", "8"]),
    "condition_to_image": (synthesize, [*FOLLOW, "--condition", "depth=depth", "--steps", "10"]),
    "condition_to_image_euler": (
        synthesize, [*FOLLOW, "--condition", "depth=depth", "--steps", "10", "--sampler", "euler"],
    ),
    "condition_guidance": (
        synthesize, [*FOLLOW, "--condition", "id=id", "--steps", "8", "--condition-guidance-scale", "2"],
    ),
    "coarse_condition": (synthesize, [*FOLLOW, "--condition", "depth=depth", "--steps", "10", "--coarse", "0.7"]),
    "joint": (generate_pairs, ["--prompts", "x", *BASE, "--published", "--steps", "10"]),
    "two_conditions": (
        synthesize,
        [*FOLLOW, "--condition", "depth=depth", "--condition", "pose=pose", "--weight", "pose=0.7", "--steps", "8"],
    ),
}  # fmt: skip


class GoldenModel(UniCon):
    """A model with the latents, prompts and noise of a golden file, which keeps its final latents."""

    def __init__(self, names: Sequence[str], tensors: dict[str, Tensor]) -> None:
        self.unet: Any = golden_unet(tuple(names))
        self.scheduler: Any = DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        )
        self.tensors, self.timestep_spacing, self.compilation = tensors, None, Compilation()
        self.run_unet = self.compilation.run_unet
        self.final: list[Tensor] = []

    native_px, vae_scale = SIZE_PX, 2  # type: ignore[assignment]
    limits = ModelLimits(native_px=SIZE_PX, multiple_px=4, steps_offset=1)  # type: ignore[assignment]

    def decode_latents(self, latents: Tensor) -> Tensor:
        self.final.append(latents)
        return torch.zeros(len(latents), 3, SIZE_PX, SIZE_PX)

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        is_negative = not any(prompts)
        return self.tensors["negative_prompt_embeds" if is_negative else "prompt_embeds"]

    def tokens_cut(self, prompts: Sequence[str]) -> list[int]:
        return [0] * len(prompts)

    def working_size(self, image_size: tuple[int, int], *, resolution_px: int | None = None) -> tuple[int, int]:
        return SIZE_PX, SIZE_PX


@cache
def golden_unet(adapters: tuple[str, ...]) -> UNet2DConditionModel:
    unet = UNet2DConditionModel.from_pretrained(GOLDEN / "unet").eval()
    for adapter in adapters:
        load_official(unet, GOLDEN / "checkpoints" / adapter, name=adapter)
    return unet


@dataclass
class Given:
    """The description of an existing model."""

    model: Any

    def build(self) -> Any:
        return self.model


def input_row(task: Any, position: int) -> dict[str, Any]:
    """Return the input of the actor for any row: images whose content the golden latents replace."""
    color, depth = Image.new("RGB", (SIZE_PX, SIZE_PX)), Image.fromarray(np.full((SIZE_PX, SIZE_PX), 9, np.uint16))
    packed = {name: pack(depth if name == "depth_map" else color) for name in task.inputs.names}
    return {"position": position, "key": str(position), "caption": "a", "width": SIZE_PX, "height": SIZE_PX, **packed}


@pytest.mark.parametrize("name", CASES)
def test_a_job_samples_as_published(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = json.loads((GOLDEN / "sampling" / f"{name}.json").read_text())
    tensors = load_file(GOLDEN / "sampling" / f"{name}.safetensors")
    rows, job, arguments = case["batch_size"], *CASES[name]
    run = job.task_run(job.parse(arguments), identity(*case["models"]), FakeDepth())
    model = GoldenModel(case["models"], tensors)
    clean = tensors["image_latents"].unflatten(0, (-1, rows))
    noise = tensors["noise"].unflatten(0, (-1, rows))
    given = [0] if job is estimate else [] if job is generate_pairs else list(range(1, case["inputs"]))
    encoded, drawn = iter(clean[role] for role in given), iter(noise)
    model.encode_images = lambda pixels: next(encoded)  # type: ignore[method-assign]
    monkeypatch.setattr("unicon.batches.row_noise", lambda shape, generators, device: next(drawn))

    compute = ComputeRows(task=run.task, model=Given(model), run_seed=3, batch_size=rows).build()
    chunk = make_chunk(0, rows)
    block = blocks.new_block(
        chunk,
        [input_row(run.task, position) for position in range(rows)],
        pa.schema([*COMMON, *run.task.passthrough, *run.task.inputs]),
    )
    result = compute(chunk, block)
    assert result.column("error_reason").to_pylist() == [None] * rows
    final = tensors["final_latents"].unflatten(0, (-1, rows))
    decoded = {"estimate": [1], "synthesize": [0], "generate_pairs": [0, 1]}[job.__name__.removeprefix("jobs.")]
    decoded = [0, 1] if name == "coarse_condition" else decoded
    assert len(model.final) == len(decoded)
    for role, latents in zip(decoded, model.final, strict=True):
        assert (latents - final[role]).norm() <= 1e-4 * final[role].norm()


def test_the_preset_is_written_down_and_the_defaults_are_not() -> None:
    def columns(*options: str) -> dict[str, Any]:
        parsed = estimate.parse(["--input", "x", "--output", "y", *options])
        return dict(estimate.task_run(parsed, identity("depth"), FakeDepth()).provenance)

    plain = columns()
    assert columns("--timestep-spacing", "trailing", "--set-alpha-to-one", "--given-at", "clean", "--eta", "0") == plain
    assert columns("--published").items() - plain.items() == {
        ("num_inference_steps", 50), ("timestep_spacing", "leading"), ("set_alpha_to_one", False),
        ("given_at", "last_index"),
    }  # fmt: skip
    assert columns("--published", "--sampler", "dpmsolver++")["timestep_spacing"] == "linspace"


def test_the_library_takes_the_same_value() -> None:
    from tests.support.tiny import tiny_model

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    options = SamplingOptions.published(num_inference_steps=3, condition_guidance_scale=1.5)
    (one,) = tiny_model().estimate([image], "depth", options=options)
    (other,) = tiny_model().estimate(
        [image], "depth", num_inference_steps=3, timestep_spacing="leading", set_alpha_to_one=False,
        given_at="last_index", condition_guidance_scale=1.5,
    )  # fmt: skip
    assert np.array_equal(one, other)
    for changed in ({"timestep_spacing": "linspace"}, {"set_alpha_to_one": True}, {"given_at": "clean"},
                    {"condition_guidance_scale": 0.0}):  # fmt: skip
        (another,) = tiny_model().estimate([image], "depth", options=options, **changed)  # type: ignore[arg-type]
        assert np.abs(another - one).max() > 1e-4, changed
