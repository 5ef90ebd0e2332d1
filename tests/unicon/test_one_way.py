"""One-way calls, in which what is given is run once, equal calls that run all rows in every step with weight 0."""

from __future__ import annotations

import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from tests.support.tiny import add_random_adapter, tiny_unet, write_tiny_model
from unicon import UniCon
from unicon.adapters.config import AdapterConfig
from unicon.batches import given_pixels, sample_batch
from unicon.layout import Layout
from unicon.options import SamplingOptions
from unicon.requests import GenerationPlan, RowRequest
from unicon.sampling import step_table
from unicon.unet_call import run_unet

TOLERANCE = 1e-5
"""Relative, in float32."""
STEPS = 2
ADAPTERS = (
    AdapterConfig(name="depth", rank=4),
    AdapterConfig(name="edge", rank=2, projection="separate"),
    AdapterConfig(name="pose", rank=4, condition_adapter=False),
    AdapterConfig(name="id", rank=2, projection="separate", condition_adapter=False),
)
NAMES = tuple(config.name for config in ADAPTERS)
CHANNELS = {"depth": 1, "edge": 1, "pose": 3, "id": 3}
GUIDANCES: dict[str, dict[str, float]] = {
    "plain": {"guidance_scale": 1.0},
    "text": {"guidance_scale": 3.0},
    "condition": {"guidance_scale": 1.0, "condition_guidance_scale": 2.0},
    "both": {"guidance_scale": 3.0, "condition_guidance_scale": 2.0},
}
QUICK = {("depth", "plain"), ("depth", "both"), ("edge", "text"), ("pose", "condition"), ("id", "both")}
CASES = [
    pytest.param(adapter, guidance, marks=[] if (adapter, guidance) in QUICK else [pytest.mark.slow])
    for adapter in NAMES
    for guidance in GUIDANCES
]
ESTIMATION = step_table.estimation(STEPS, clean_image=True)
SYNTHESIS = step_table.synthesis(STEPS, clean_conditions=True)


@pytest.fixture(scope="module")
def model() -> UniCon:
    with TemporaryDirectory() as folder:
        return UniCon.from_pretrained(write_tiny_model(Path(folder), ADAPTERS), device="cpu")


def noise_map(seed: int, channels: int) -> np.ndarray:
    values = np.random.default_rng(seed).random((32, 32, channels), dtype=np.float32)
    return values[..., 0] if channels == 1 else values


def request(seed: int, prompt: str, **changes: Any) -> RowRequest:
    image = Image.fromarray((noise_map(seed, 3) * 255).astype(np.uint8))
    maps = {name: noise_map(seed + 10, channels) for name, channels in CHANNELS.items()}
    settings = {"image": image, "maps": maps, "prompt": prompt, **changes}
    return RowRequest(working_size=(32, 32), size=(32, 32), seed=seed, **settings)


REQUESTS = [request(1, "a cat"), request(2, "")]


def plan_of(one_way: bool, sampling: dict[str, Any] | None = None, **settings: Any) -> GenerationPlan:
    options = SamplingOptions(num_inference_steps=STEPS, one_way=one_way, **{"guidance_scale": 1.0, **(sampling or {})})
    return GenerationPlan(sampling=options, **settings)


def sampled(model: UniCon, plan: GenerationPlan, requests: list[RowRequest]) -> dict[int, Tensor]:
    return sample_batch(model, requests, plan, given_pixels(model, requests, plan, {}), {})


def check_equal(found: dict[int, Tensor], expected: dict[int, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for role, latents in found.items():
        error = float((latents - expected[role]).norm() / expected[role].norm())
        assert error <= TOLERANCE, (role, error)


def compare(
    model: UniCon, weights: dict[str, tuple[float, float]], sampling: dict[str, Any],
    requests: list[RowRequest] = REQUESTS, **settings: Any,
) -> None:  # fmt: skip
    once = sampled(model, plan_of(True, sampling, **settings), requests)
    check_equal(once, sampled(model, plan_of(False, sampling, weights=weights, **settings), requests))


def test_it_is_not_the_same_as_two_way(model: UniCon) -> None:
    settings: dict[str, Any] = {"adapters": ("depth",), "table": ESTIMATION, "given": (0,)}
    one_way, two_way = (sampled(model, plan_of(which, **settings), REQUESTS)[1] for which in (True, False))
    assert float((one_way - two_way).norm() / two_way.norm()) > 1e-2


@pytest.mark.parametrize(("adapter", "guidance"), CASES)
def test_estimation(model: UniCon, adapter: str, guidance: str) -> None:
    weights = {adapter: (0.0, 1.0)}
    compare(model, weights, GUIDANCES[guidance], adapters=(adapter,), table=ESTIMATION, given=(0,))


@pytest.mark.parametrize(("adapter", "guidance"), CASES)
def test_synthesis(model: UniCon, adapter: str, guidance: str) -> None:
    weights = {adapter: (1.0, 0.0)}
    compare(model, weights, GUIDANCES[guidance], adapters=(adapter,), table=SYNTHESIS, given=(1,))


def test_the_training_form_runs_all_rows_in_every_step(model: UniCon) -> None:
    training = copy.copy(model)
    training.unet = tiny_unet()
    add_random_adapter(training.unet, ADAPTERS[0], seed=1)  # as in the model's folder
    plan = plan_of(True, adapters=("depth",), table=ESTIMATION, given=(0,))
    found, expected = (sampled(each, plan, REQUESTS)[1] for each in (training, model))
    assert float((found - expected).norm() / expected.norm()) <= 10 * TOLERANCE


def test_given_at_the_last_index_and_a_stochastic_sampler(model: UniCon) -> None:
    options = {"given_at": "last_index", "sampler": "euler_ancestral"}
    compare(model, {"edge": (0.0, 1.0)}, options, adapters=("edge",), table=step_table.estimation(STEPS), given=(0,))


def test_synthesis_from_all_conditions(model: UniCon) -> None:
    table = step_table.synthesis(STEPS, len(NAMES), clean_conditions=True)
    weights = {name: (0.5, 0.0) for name in NAMES}
    once = plan_of(True, GUIDANCES["both"], adapters=NAMES, table=table, given=(1, 2, 3, 4),
                   weights={name: (0.5, 0.0) if name == "id" else 0.5 for name in NAMES})  # fmt: skip
    every_step = plan_of(
        False, GUIDANCES["both"], adapters=NAMES, table=table, given=(1, 2, 3, 4), weights=weights
    )  # fmt: skip
    check_equal(sampled(model, once, REQUESTS), sampled(model, every_step, REQUESTS))


@pytest.mark.parametrize("given", ["depth", "id"])
def test_inpainting_with_given_and_generated_conditions(model: UniCon, given: str) -> None:
    adapters = (given, "edge", "pose")
    mask = np.zeros((32, 32), np.float32)
    mask[4:20, 10:30] = 1
    masked = [request(1, "a cat", mask=mask), request(2, "", mask=mask)]
    table = step_table.completion(STEPS, num_given=1, num_generated=2)
    compare(
        model, {given: (1.0, 0.0)}, GUIDANCES["both"], masked, adapters=adapters, table=table, given=(1,)
    )  # fmt: skip


@pytest.mark.parametrize("one_way", [True, False])
@pytest.mark.parametrize(
    "sampling", [{}, GUIDANCES["both"], {"given_at": "last_index", "sampler": "euler_ancestral"}], ids=str
)
def test_conditions_in_one_pass_equal_their_single_runs(model: UniCon, one_way: bool, sampling: dict[str, Any]) -> None:
    def table(count: int) -> step_table.StepTable:
        return step_table.estimation(STEPS, count, clean_image="given_at" not in sampling)

    settings = {"given": (0,), "separate": True}
    names = ("depth", "edge", "id")
    plan = plan_of(one_way, sampling, adapters=names, table=table(len(names)), **settings)
    together = sampled(model, plan, REQUESTS)
    for role, name in enumerate(names, start=1):
        alone = sampled(model, plan_of(one_way, sampling, adapters=(name,), table=table(1), **settings), REQUESTS)
        check_equal({1: together[role]}, alone)


def test_what_is_given_is_run_once(model: UniCon) -> None:
    calls: list[tuple[bool, int]] = []

    def run(unet: Any, layout: Layout, latents: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        calls.append((bool(layout.sources), len(latents)))
        return run_unet(unet, layout, latents, *tensors)

    counted = copy.copy(model)
    counted.run_unet = run
    image = REQUESTS[0].image
    assert image is not None
    counted.estimate([image] * 2, "depth", one_way=True, num_inference_steps=STEPS)
    assert calls == [(True, 2), *[(False, 2)] * STEPS]
    calls.clear()
    counted.estimate([image] * 2, "id", one_way=True, num_inference_steps=1, condition_guidance_scale=1.0,
                     guidance_scale=2.0)  # fmt: skip
    assert calls == [(True, 2), (False, 6)]  # equal negative prompts share rows, and no image is without joint rows
    calls.clear()
    counted.synthesize({"depth": [noise_map(1, 1)]}, ["a"], one_way=True, num_inference_steps=STEPS)
    assert calls == [(True, 2), *[(False, 2)] * STEPS]  # the trigger makes the prompt differ from the negative one


def test_where_one_way_means_nothing_it_is_refused(model: UniCon) -> None:
    depth = noise_map(1, 1)
    for call in (
        lambda: model.generate_pairs(["a"], one_way=True),
        lambda: model.refine({"depth": [depth]}, ["a"], one_way=True),
        lambda: model.inpaint([REQUESTS[0].image], [depth > 0.5], ["a"], one_way=True),  # type: ignore[list-item]
    ):
        with pytest.raises(ValueError, match="one_way needs an image or conditions that are given"):
            call()
    with pytest.raises(ValueError, match=r"nothing is added to what is given; 'depth' has the weights \(1.0, 0.5\)"):
        model.synthesize({"depth": [depth]}, ["a"], one_way=True, weights={"depth": (1.0, 0.5)})
    with pytest.raises(ValueError, match="one_way is true or false; got 1"):
        model.estimate([], one_way=1)  # type: ignore[arg-type]
