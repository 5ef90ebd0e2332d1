from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from torch import Tensor

from unicon import schedule
from unicon.guidance import guide
from unicon.sampling import noisy_latents, row_noise, row_timesteps, sample, starting_latents, with_timesteps

OPTIONS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ROLES = [slice(0, 2), slice(2, 4)]


def ddim(steps: int) -> DDIMScheduler:
    scheduler = DDIMScheduler(**OPTIONS, clip_sample=False, timestep_spacing="trailing")
    return with_timesteps(scheduler, steps)


def towards_zero(latents: Tensor, timesteps: Tensor) -> Tensor:
    """A denoiser that takes every sample for pure noise."""
    alphas = DDIMScheduler(**OPTIONS).alphas_cumprod[timesteps.long()].reshape(-1, 1, 1, 1)
    return latents / (1 - alphas).sqrt()


def half(latents: Tensor, timesteps: Tensor) -> Tensor:
    """A denoiser that takes half of every sample for noise."""
    return latents * 0.5


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_a_clean_image_is_never_touched() -> None:
    clean, noise = torch.randn(4, 1, 2, 2), torch.randn(4, 1, 2, 2)
    table = schedule.estimation(4, clean_image=True)
    start = starting_latents(ddim(4), table, ROLES, clean, noise)
    assert torch.equal(start, torch.cat([clean[:2], noise[2:]]))
    final = sample(towards_zero, start, ddim(4), table, ROLES)
    assert torch.equal(final[:2], clean[:2])
    assert final[2:].abs().max() < 1e-4
    assert torch.equal(start[2:], noise[2:])


def test_row_timesteps() -> None:
    table = schedule.estimation(4, clean_image=True)
    expected = torch.tensor([[0, 0, 999], [0, 0, 749], [0, 0, 499], [0, 0, 249]])
    timesteps = row_timesteps(ddim(4), table, [slice(0, 2), slice(2, 3)], torch.device("cpu"))
    assert torch.equal(timesteps.long(), expected)


def test_the_given_scheduler_stays_as_it_is() -> None:
    scheduler = EulerDiscreteScheduler(**OPTIONS)
    ready = with_timesteps(scheduler, 5)
    before = (ready._step_index, ready._begin_index)
    start = torch.randn(4, 1, 2, 2)
    first = sample(half, start, ready, schedule.joint(5), ROLES)
    assert (ready._step_index, ready._begin_index) == before
    assert torch.equal(sample(half, start, ready, schedule.joint(5), ROLES), first)
    assert scheduler.num_inference_steps is None


def test_stochastic_noise_belongs_to_the_row() -> None:
    start = row_noise((1, 2, 2), generators(1, 2, 3, 4), torch.device("cpu"), torch.float32)
    options = {"scheduler": ddim(5), "table": schedule.joint(5)}
    together = sample(half, start, roles=ROLES, eta=1.0, generators=generators(1, 2, 3, 4), **options)
    alone = sample(
        half, start[[1, 3]], roles=[slice(0, 1), slice(1, 2)], eta=1.0, generators=generators(2, 4), **options
    )
    assert torch.equal(alone, together[[1, 3]])
    assert not torch.equal(together, sample(half, start, roles=ROLES, **options))


def test_mask_keeps_places() -> None:
    clean, noise = torch.randn(4, 1, 2, 2), torch.randn(4, 1, 2, 2)
    mask = torch.zeros(4, 1, 2, 2)
    mask[..., 0] = 1
    table = schedule.joint(4)
    start = starting_latents(ddim(4), table, ROLES, clean, noise)
    final = sample(towards_zero, start, ddim(4), table, ROLES, clean=clean, noise=noise, mask=mask)
    assert torch.equal(final[..., 1], clean[..., 1])
    assert not torch.allclose(final[..., 0], clean[..., 0])


def test_noisy_latents_follow_the_scheduler() -> None:
    clean, noise = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 2.0)
    euler = with_timesteps(EulerDiscreteScheduler(**OPTIONS), 5)
    assert torch.allclose(noisy_latents(euler, clean, noise, 3), clean + 2 * euler.sigmas[3])
    assert noisy_latents(euler, clean, noise, 5) is clean


def test_wrong_calls_are_refused() -> None:
    start = torch.randn(4, 1, 2, 2)
    with pytest.raises(ValueError, match="fits its roles"):
        sample(towards_zero, start, ddim(5), schedule.joint(4), ROLES)
    with pytest.raises(ValueError, match="fits its roles"):
        sample(towards_zero, start, ddim(4), schedule.joint(4), ROLES[:1])
    with pytest.raises(ValueError, match="mask"):
        sample(towards_zero, start, ddim(4), schedule.joint(4), ROLES, mask=torch.ones(4, 1, 2, 2))
    with pytest.raises(ValueError, match="one generator a row"):
        sample(towards_zero, start, ddim(4), schedule.joint(4), ROLES, eta=1.0)


def test_guidance() -> None:
    positive, negative, without = (torch.full((1,), value) for value in (3.0, 1.0, 2.0))
    assert guide(positive).item() == 3.0
    assert guide(positive, negative=negative, guidance_scale=2.0).item() == 5.0
    guided = guide(positive, negative=negative, guidance_scale=2.0, without_joint=without, condition_guidance_scale=0.5)
    assert guided.item() == 5.5
