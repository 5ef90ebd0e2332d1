# diffusers declares the arguments of `to` incorrectly.
# pyright: reportArgumentType=false
"""Half precision, memory and compilation on a GPU. Run with `./dev test -m gpu`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.errors import SampleError
from pipelines.stages.batch_sizes import BatchSizes
from pipelines.stages.microbatches import MicroBatches
from tests.support.tiny import add_random_adapter, tiny_unet
from unicon import UniCon
from unicon.adapters.config import AdapterConfig
from unicon.adapters.merge import merge_adapters
from unicon.adapters.unet import adapter_parameters
from unicon.pairs import Pairs
from unicon.scenes import render
from unicon.scenes.layout import sample_scene
from unicon.training.fit import FitConfig, fit

pytestmark = pytest.mark.gpu

SCENES = 8


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [Image.fromarray(render(sample_scene(101, index)).image) for index in range(SCENES)]


@pytest.fixture(scope="module")
def on_cpu(images: list[Image.Image]) -> list[np.ndarray]:
    return UniCon.from_pretrained("mini", device="cpu").estimate(images, "depth", num_views=1)


@pytest.mark.parametrize(("dtype", "mean", "most"), [("float32", 1e-5, 1e-3), ("float16", 2e-3, 0.05),
                                                     ("bfloat16", 1e-2, 0.2)])  # fmt: skip
def test_maps_of_a_gpu_are_those_of_the_cpu(
    images: list[Image.Image], on_cpu: list[np.ndarray], dtype: str, mean: float, most: float
) -> None:
    model = UniCon.from_pretrained("mini", device="cuda", dtype=getattr(torch, dtype))
    apart = np.stack([np.abs(ours - theirs) for ours, theirs in
                      zip(model.estimate(images, "depth", num_views=1), on_cpu, strict=True)])  # fmt: skip
    print(f"{dtype}: {apart.mean():.2e} on average, {apart.max():.2e} at most")
    assert apart.mean() <= mean
    assert apart.max() <= most


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float16", 0.05)])
def test_a_result_belongs_to_its_row(images: list[Image.Image], dtype: str, tolerance: float) -> None:
    model = UniCon.from_pretrained("mini", device="cuda", dtype=getattr(torch, dtype))
    options: dict[str, Any] = {"num_views": 1, "num_inference_steps": 4}
    together = model.estimate(images, "depth", seeds=list(range(SCENES)), **options)
    alone = [model.estimate([image], "depth", seeds=[seed], **options)[0] for seed, image in enumerate(images)]
    apart = max(float(np.abs(one - other).max()) for one, other in zip(together, alone, strict=True))
    print(f"{dtype}: {apart:.2e} at most")
    assert apart <= tolerance


def test_half_precision_is_the_default() -> None:
    model = UniCon.from_pretrained("mini")
    assert model.device.type == "cuda"
    assert model.dtype == torch.float16


def test_micro_batches_shrink_to_the_memory_there_is() -> None:
    row = torch.cuda.get_device_properties(0).total_memory // 5

    def compute(rows: list[int]) -> Sequence[int]:
        parts = [torch.empty(row, dtype=torch.uint8, device="cuda") for _ in rows]
        return [len(part) for part in parts]

    sizes = BatchSizes(8)
    results = list(MicroBatches(sizes, compute).run({(64, 64): range(11)}))
    assert [number for number, _ in results] == list(range(11))
    assert {result for _, result in results} == {row}
    assert (sizes.limit(64 * 64), sizes.limit(32 * 32)) == (4, 8)


def test_a_row_too_large_for_the_memory_is_an_error_of_its_own() -> None:
    total = torch.cuda.get_device_properties(0).total_memory

    def compute(rows: list[int]) -> Sequence[int]:
        return [len(torch.empty(2 * total if number == 1 else 1, dtype=torch.uint8, device="cuda")) for number in rows]

    results = dict(MicroBatches(BatchSizes(4), compute).run({(64, 64): [0, 1, 2]}))
    assert (results[0], results[2]) == (1, 1)
    assert isinstance(results[1], SampleError)


def test_a_compiled_unet_computes_the_same() -> None:
    unet = tiny_unet().eval()
    add_random_adapter(unet, AdapterConfig(name="depth", rank=4))
    merged = merge_adapters(unet).to("cuda")
    torch.manual_seed(0)
    latents, text = torch.randn(4, 4, 16, 16, device="cuda"), torch.randn(4, 7, 24, device="cuda")
    timesteps = torch.tensor([1, 500, 500, 1], device="cuda")
    kwargs = {"cross_attention_kwargs": {"pairs": Pairs.one_to_one(2, "depth")}}
    with torch.no_grad():
        plain = merged(latents, timesteps, text, **kwargs).sample
        compiled = torch.compile(merged)(latents, timesteps, text, **kwargs).sample
    assert float((plain - compiled).norm() / plain.norm()) <= 1e-4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_training_in_half_precision_learns_and_resumes(tmp_path: Path, dtype: str) -> None:
    def run(folder: Path, stops: Sequence[int]) -> tuple[list[float], list[torch.Tensor]]:
        seen: list[torch.Tensor] = []
        parameters: dict[str, torch.nn.Parameter] = {}
        for stop in stops:
            unet = tiny_unet().to("cuda")
            add_random_adapter(unet, AdapterConfig(name="depth", rank=4))
            parameters = {str(at): value for at, value in enumerate(adapter_parameters(unet, "depth"))}
            seen = []

            def loss(generator: torch.Generator, unet=unet, seen=seen) -> dict[str, torch.Tensor]:
                latents = torch.randn(4, 4, 16, 16, generator=generator).cuda()
                pairs = Pairs.one_to_one(2, "depth")
                text = torch.zeros(4, 7, 24, device="cuda")
                out = unet(latents, 500, text, cross_attention_kwargs={"pairs": pairs}).sample
                seen.append(out.float().square().mean())
                return {"loss": seen[-1]}

            config = FitConfig(steps=stop, learning_rate=1e-3, warmup_steps=1, final_learning_rate_fraction=1.0,
                               autocast_dtype=dtype, checkpoint_every=5)  # fmt: skip
            fit(parameters, loss, config, folder)
        return [float(value.detach()) for value in seen], [value.detach() for value in parameters.values()]

    losses, at_once = run(tmp_path / "at-once", [20])
    _, resumed = run(tmp_path / "resumed", [10, 20])
    assert losses[-1] < losses[0]
    assert max(float((a - b).abs().max()) for a, b in zip(at_once, resumed, strict=True)) <= 1e-3
