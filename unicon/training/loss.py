# diffusers declares its configurations as plain dictionaries, and timesteps as `IntTensor`.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""The diffusion loss with min-SNR weighting.

Source: "Efficient Diffusion Training via Min-SNR Weighting Strategy", arXiv 2303.09556. UniCon trains with gamma 5.
"""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler
from torch import Tensor


def min_snr_weights(timesteps: Tensor, alphas_cumprod: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """(B,) timesteps -> (B,) loss weights: min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v_prediction."""
    alphas = alphas_cumprod.to(timesteps.device)[timesteps].float()
    snr = alphas / (1.0 - alphas)
    divisor = snr + 1.0 if prediction_type == "v_prediction" else snr
    # the ratio tends to 1 as SNR -> 0 (schedules with zero terminal SNR), where the quotient is 0 / 0
    return torch.where(snr > 0, snr.clamp(max=gamma) / divisor.clamp(min=1e-20), torch.ones_like(snr))


def diffusion_loss(
    prediction: Tensor,
    *,
    noise: Tensor,
    timesteps: Tensor,
    scheduler: DDPMScheduler,
    latents: Tensor | None = None,
    min_snr_gamma: float | None = 5.0,
) -> Tensor:
    """The mean of `row_losses` with the same arguments, a scalar in float32."""
    return row_losses(
        prediction,
        noise=noise,
        timesteps=timesteps,
        scheduler=scheduler,
        latents=latents,
        min_snr_gamma=min_snr_gamma,
    ).mean()


def row_losses(
    prediction: Tensor,
    *,
    noise: Tensor,
    timesteps: Tensor,
    scheduler: DDPMScheduler,
    latents: Tensor | None = None,
    min_snr_gamma: float | None = 5.0,
) -> Tensor:
    """Mean squared error of every row against the target of the scheduler's prediction type, float32 (B,).

    Args:
        prediction: Output of the UNet, (B, channels, h, w).
        noise: The noise that was added, (B, channels, h, w).
        timesteps: (B,) integers, independent for every row.
        scheduler: The noise schedule.
        latents: The clean latents, (B, channels, h, w). Needed for v_prediction only.
        min_snr_gamma: Gamma of the weighting; None for no weighting.

    Raises:
        ValueError: The prediction type is neither epsilon nor v_prediction, or latents are missing.
    """
    prediction_type = scheduler.config.prediction_type
    if prediction_type == "epsilon":
        target = noise
    elif prediction_type == "v_prediction" and latents is not None:
        target = scheduler.get_velocity(latents, noise, timesteps)
    else:
        raise ValueError(
            f"The loss supports epsilon, and v_prediction with clean latents; got {prediction_type!r}, latents "
            f"{'absent' if latents is None else 'given'}. Correct the scheduler's prediction_type, or give latents."
        )
    errors = (prediction.float() - target.float()).square().flatten(1).mean(dim=1)
    if min_snr_gamma is not None:
        errors = errors * min_snr_weights(timesteps, scheduler.alphas_cumprod, min_snr_gamma, prediction_type)
    return errors
