# diffusers declares timesteps as `IntTensor`.
# pyright: reportArgumentType=false
from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

from unicon.training.loss import diffusion_loss, min_snr_weights

OPTIONS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def test_weights() -> None:
    scheduler = DDPMScheduler(**OPTIONS)
    timesteps = torch.tensor([0, 300, 999])
    snr = scheduler.alphas_cumprod[timesteps] / (1 - scheduler.alphas_cumprod[timesteps])
    epsilon = min_snr_weights(timesteps, scheduler.alphas_cumprod, 5.0, "epsilon")
    assert torch.allclose(epsilon, snr.clamp(max=5) / snr)
    velocity = min_snr_weights(timesteps, scheduler.alphas_cumprod, 5.0, "v_prediction")
    assert torch.allclose(velocity, snr.clamp(max=5) / (snr + 1))


def test_a_perfect_velocity_has_no_loss() -> None:
    scheduler = DDPMScheduler(**OPTIONS, prediction_type="v_prediction")
    latents, noise, timesteps = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3), torch.tensor([10, 700])
    velocity = scheduler.get_velocity(latents, noise, timesteps)
    arguments = {"noise": noise, "timesteps": timesteps, "scheduler": scheduler}
    assert diffusion_loss(velocity, latents=latents, **arguments) == 0
    assert diffusion_loss(noise, latents=latents, **arguments) > 0
    with pytest.raises(ValueError, match="latents absent"):
        diffusion_loss(velocity, **arguments)
