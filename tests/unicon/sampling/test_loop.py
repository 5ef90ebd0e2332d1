# diffusers declares the arguments of its schedulers too narrowly, and their outputs as tuples.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
)
from torch import Tensor

from unicon.options import SamplingOptions
from unicon.sampling import step_table
from unicon.sampling.guidance import guide
from unicon.sampling.loop import noise_levels, noisy_latents, row_timesteps, sample, starting_latents, with_timesteps
from unicon.sampling.samplers import NoiseLevels, Sampler, row_noise
from unicon.sampling.step_table import StepTable

OPTIONS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ROLES = [slice(0, 2), slice(2, 4)]
ALL_SAMPLERS = [
    Sampler("ddim"),
    Sampler("ddim", 1.0),
    Sampler("euler"),
    Sampler("euler_ancestral"),
    Sampler("dpmsolver++"),
    Sampler("lcm"),
]


def ddim(steps: int, **options) -> NoiseLevels:
    options = {**OPTIONS, "clip_sample": False, "timestep_spacing": "trailing", **options}
    return with_timesteps(DDIMScheduler(**options), steps)


def towards_zero(latents: Tensor, timesteps: Tensor) -> Tensor:
    """A denoiser that takes every sample for pure noise."""
    alphas = DDIMScheduler(**OPTIONS).alphas_cumprod[timesteps.long()].reshape(-1, 1, 1, 1)
    return latents / (1 - alphas).sqrt()


def crooked(latents: Tensor, timesteps: Tensor) -> Tensor:
    """A denoiser that depends on latents and timestep in no simple way."""
    return torch.sin(3 * latents + timesteps.reshape(-1, 1, 1, 1) / 200)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_a_clean_image_is_never_touched() -> None:
    clean, noise = torch.randn(4, 1, 2, 2), torch.randn(4, 1, 2, 2)
    table = step_table.estimation(4, clean_image=True)
    start = starting_latents(ddim(4), table, ROLES, clean, noise)
    assert torch.equal(start, torch.cat([clean[:2], noise[2:]]))
    final = sample(towards_zero, start, ddim(4), table, ROLES)
    assert torch.equal(final[:2], clean[:2])
    assert final[2:].abs().max() < 1e-4
    assert torch.equal(start[2:], noise[2:])


def test_row_timesteps() -> None:
    table = step_table.estimation(4, clean_image=True)
    expected = torch.tensor([[0, 0, 999], [0, 0, 749], [0, 0, 499], [0, 0, 249]])
    timesteps = row_timesteps(ddim(4), table, [slice(0, 2), slice(2, 3)], torch.device("cpu"))
    assert torch.equal(timesteps.long(), expected)


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_any_number_of_steps_ends_clean(spacing: str) -> None:
    scheduler = DDIMScheduler(**OPTIONS, timestep_spacing=spacing, set_alpha_to_one=True)
    for steps in (*range(1, 130), 999, 1000):
        levels = with_timesteps(scheduler, steps)
        assert levels.num_inference_steps == steps and levels.sigma(steps) == 0
        assert all(before < after for before, after in zip(levels.alphas, levels.alphas[1:], strict=False))
    assert scheduler.num_inference_steps is None


THEIRS: dict[str, Any] = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerAncestralDiscreteScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
}


def sampled_by_diffusers(name: str, start: Tensor, steps: int, options: dict[str, Any]) -> Tensor:
    """The pipeline loop of diffusers; its Euler schedulers work on latents / alpha."""
    theirs = THEIRS[name](**OPTIONS, **options)
    theirs.set_timesteps(steps)
    divided = name.startswith("euler")
    latents = start * (theirs.sigmas[0] ** 2 + 1) ** 0.5 if divided else start
    for timestep in theirs.timesteps:
        scaled = theirs.scale_model_input(latents, timestep)
        drawn = {"generator": generators(7)[0]} if name == "euler_ancestral" else {}
        latents = theirs.step(crooked(scaled, timestep.reshape(1)), timestep, latents, return_dict=False, **drawn)[0]
    return latents


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("name", THEIRS)
def test_every_sampler_is_the_diffusers_scheduler_of_its_name(
    name: str, spacing: str, prediction_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"timestep_spacing": spacing, "prediction_type": prediction_type}
    if name == "ddim":
        options |= {"clip_sample": False, "set_alpha_to_one": True}
    start = torch.randn(1, 2, 3, 3, generator=generators(0)[0])
    theirs = sampled_by_diffusers(name, start, 8, options)
    levels = with_timesteps(THEIRS[name](**OPTIONS, **options), 8)
    fresh = row_noise((2, 3, 3), generators(7), torch.device("cpu"))
    monkeypatch.setattr(
        "unicon.sampling.samplers.row_noise", lambda *_: fresh
    )  # diffusers was given the same noise every time
    table = step_table.from_paths([range(8)], 8)
    ours = sample(crooked, start, levels, table, [slice(0, 1)], sampler=Sampler(name), generators=generators(7))  # type: ignore[arg-type]
    assert (ours - theirs).norm() <= 2e-4 * theirs.norm()


def test_stochastic_ddim_is_diffusers_ddim() -> None:
    scheduler = DDIMScheduler(**OPTIONS, timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(5)
    latents, prediction = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    noise = row_noise((1, 2, 2), generators(1, 2), torch.device("cpu"))
    theirs = scheduler.step(prediction, scheduler.timesteps[2], latents, eta=0.6, variance_noise=noise).prev_sample
    ours, _ = Sampler("ddim", 0.6).step(prediction, latents, ddim(5), 2, generators=generators(1, 2))
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 2, 4, 7, 8, 50])
def test_lcm_is_the_diffusers_scheduler(steps: int, prediction_type: str) -> None:
    """Every step, given the same noise; rows draw it from generators of their own."""
    theirs = LCMScheduler(**OPTIONS, prediction_type=prediction_type)
    theirs.set_timesteps(steps)
    settings = {**OPTIONS, "num_train_timesteps": 1000, "prediction_type": prediction_type}
    levels = noise_levels(settings, SamplingOptions(sampler="lcm", num_inference_steps=steps))
    assert list(levels.timesteps) == theirs.timesteps.tolist()
    ours = latents = torch.randn(2, 1, 3, 3, generator=generators(0)[0])
    seeds, same_seeds = generators(5, 6), generators(5, 6)
    for index, timestep in enumerate(theirs.timesteps):
        prediction = crooked(latents, timestep.reshape(1))
        rows = []
        for row, generator in enumerate(same_seeds):
            theirs._step_index = index
            stepped = theirs.step(prediction[row][None], timestep, latents[row][None], generator=generator)
            rows.append(stepped.prev_sample)
        latents = torch.cat(rows)
        ours, _ = Sampler("lcm").step(prediction, ours, levels, index, generators=seeds)
        assert (ours - latents).abs().max() <= 1e-5 * max(1.0, float(latents.abs().max()))
        ours = latents


@pytest.mark.parametrize("name", ["euler", "euler_ancestral", "dpmsolver++"])
def test_linspace_is_the_spacing_of_the_samplers_own_scheduler(name: str) -> None:
    options = SamplingOptions(sampler=name, timestep_spacing="linspace", num_inference_steps=7)  # type: ignore[arg-type]
    theirs = THEIRS[name](**OPTIONS, timestep_spacing="linspace")
    theirs.set_timesteps(7)
    levels = noise_levels({**OPTIONS, "num_train_timesteps": 1000}, options)
    assert list(levels.timesteps) == pytest.approx(theirs.timesteps.tolist())
    start = theirs.init_noise_sigma / (theirs.sigmas[0] ** 2 + 1) ** 0.5 if name.startswith("euler") else 1.0
    assert levels.start_scale == pytest.approx(float(start))


def test_more_steps_than_there_are_timesteps() -> None:
    schedule_of = {**OPTIONS, "num_train_timesteps": 1000, "steps_offset": 1}
    leading = SamplingOptions(timestep_spacing="leading", num_inference_steps=1000)
    with pytest.raises(ValueError, match="would go beyond"):
        noise_levels(schedule_of, leading)
    with pytest.raises(ValueError, match="cannot be larger than 500"):
        noise_levels({**schedule_of, "num_train_timesteps": 500}, replace(leading, num_inference_steps=501))
    with pytest.raises(ValueError, match="num_inference_steps is at most 1000; got 1001"):
        SamplingOptions(num_inference_steps=1001)


@pytest.mark.parametrize("sampler", ALL_SAMPLERS)
def test_zero_terminal_snr(sampler: Sampler) -> None:
    levels = ddim(6, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    assert levels.alphas[0] == 0 and levels.log_snr(0) == -math.inf
    start = torch.randn(4, 1, 2, 2)
    final = sample(
        crooked, start, levels, step_table.joint(6), ROLES, sampler=sampler, generators=generators(1, 2, 3, 4)
    )
    assert final.isfinite().all() and 0 < final.abs().max() < 10


def test_noise_prediction_at_zero_snr_is_refused() -> None:
    with pytest.raises(ValueError, match="zero terminal SNR.*leading"):
        ddim(6, rescale_betas_zero_snr=True)
    assert ddim(6, rescale_betas_zero_snr=True, timestep_spacing="leading").alphas[0] > 0
    with pytest.raises(ValueError, match="'velocity'"):
        ddim(6, prediction_type="velocity")


@pytest.mark.parametrize("sampler", ALL_SAMPLERS)
def test_a_role_that_stands_still_keeps_its_history(sampler: Sampler) -> None:
    """The same steps with pauses between them give the same result: this denoiser sees every row by itself."""
    straight = step_table.from_paths([range(5), range(5)], 5)
    paused = StepTable(((0, 0), (1, 0), (2, 1), (2, 1), (3, 2), (4, 3), (4, 4), (4, 4)), 5)
    start = torch.randn(4, 1, 2, 2)
    first, second = (
        sample(crooked, start, ddim(5), table, ROLES, sampler=sampler, generators=generators(1, 2, 3, 4))
        for table in (straight, paused)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("sampler", [sampler for sampler in ALL_SAMPLERS if sampler != Sampler("ddim", 1.0)])
def test_a_role_may_start_part_way(sampler: Sampler) -> None:
    table = step_table.coarse(10, 0.5)
    clean, noise = torch.randn(4, 1, 2, 2), torch.randn(4, 1, 2, 2)
    start = starting_latents(ddim(10), table, ROLES, clean, noise)
    assert torch.allclose(start[2:], noisy_latents(ddim(10), clean, noise, 4)[2:])
    final = sample(crooked, start, ddim(10), table, ROLES, sampler=sampler, generators=generators(1, 2, 3, 4))
    assert final.isfinite().all()


@pytest.mark.parametrize("sampler", [Sampler("ddim", 1.0), Sampler("euler_ancestral"), Sampler("lcm")])
def test_stochastic_noise_belongs_to_the_row(sampler: Sampler) -> None:
    start = row_noise((1, 2, 2), generators(1, 2, 3, 4), torch.device("cpu"))
    options: dict[str, Any] = {"levels": ddim(5), "table": step_table.joint(5)}
    together = sample(crooked, start, roles=ROLES, sampler=sampler, generators=generators(1, 2, 3, 4), **options)
    roles = [slice(0, 1), slice(1, 2)]
    alone = sample(crooked, start[[1, 3]], roles=roles, sampler=sampler, generators=generators(2, 4), **options)
    assert torch.equal(alone, together[[1, 3]])
    assert not torch.equal(together, sample(crooked, start, roles=ROLES, **options))
    with pytest.raises(ValueError, match="one generator for each row"):
        sample(crooked, start, roles=ROLES, sampler=sampler, **options)


def test_mask_keeps_places() -> None:
    clean, noise = torch.randn(4, 1, 2, 2), torch.randn(4, 1, 2, 2)
    mask = torch.zeros(4, 1, 2, 2)
    mask[..., 0] = 1
    table = step_table.joint(4)
    start = starting_latents(ddim(4), table, ROLES, clean, noise)
    final = sample(towards_zero, start, ddim(4), table, ROLES, clean=clean, noise=noise, mask=mask)
    assert torch.equal(final[..., 1], clean[..., 1])
    assert not torch.allclose(final[..., 0], clean[..., 0])


def test_noisy_latents_follow_the_scheduler() -> None:
    clean, noise = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    scheduler = DDIMScheduler(**OPTIONS, timestep_spacing="trailing")
    expected = scheduler.add_noise(clean, noise, torch.tensor([399] * 3))
    assert torch.allclose(noisy_latents(with_timesteps(scheduler, 5), clean, noise, 3), expected)
    assert noisy_latents(ddim(5), clean, noise, 5) is clean


def test_wrong_calls_are_refused() -> None:
    start = torch.randn(4, 1, 2, 2)
    with pytest.raises(ValueError, match="fits its roles"):
        sample(towards_zero, start, ddim(5), step_table.joint(4), ROLES)
    with pytest.raises(ValueError, match="fits its roles"):
        sample(towards_zero, start, ddim(4), step_table.joint(4), ROLES[:1])
    with pytest.raises(ValueError, match="mask"):
        sample(towards_zero, start, ddim(4), step_table.joint(4), ROLES, mask=torch.ones(4, 1, 2, 2))
    with pytest.raises(ValueError, match="cannot be larger"):
        ddim(1001)
    for name, eta in (("plms", 0.0), ("ddim", 1.5), ("euler", 0.5), ("dpmsolver++", 1.0)):
        with pytest.raises(ValueError, match="sampler"):
            Sampler(name, eta)  # type: ignore[arg-type]


def test_guidance() -> None:
    positive, negative, without = (torch.full((1,), value) for value in (3.0, 1.0, 2.0))
    assert guide(positive).item() == 3.0
    assert guide(positive, negative=negative, guidance_scale=2.0).item() == 5.0
    guided = guide(positive, negative=negative, guidance_scale=2.0, without_joint=without, condition_guidance_scale=0.5)
    assert guided.item() == 5.5
    assert guide(positive, without_joint=without, condition_guidance_scale=0.5).item() == 3.5


@pytest.mark.parametrize("index", [0, 5, 9])
def test_a_model_that_predicts_the_image_is_stepped_as_in_diffusers(index: int) -> None:
    scheduler = DDIMScheduler(prediction_type="sample", clip_sample=False, timestep_spacing="trailing")
    levels = with_timesteps(scheduler, 10)
    scheduler.set_timesteps(10)
    prediction, latents = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(index))
    ours, clean = Sampler().step(prediction, latents, levels, index)
    theirs = scheduler.step(prediction, int(scheduler.timesteps[index]), latents)
    assert torch.equal(clean, prediction)
    assert torch.allclose(ours, theirs.prev_sample, atol=1e-5)
