"""Noise levels, and samplers that step from one level to the next, as values and pure functions without state.

Latents at a level are alpha * clean + sigma * noise with alpha^2 + sigma^2 = 1 (variance preserving), for every
sampler. On this scale a level without any signal (zero terminal SNR, alpha 0) is an ordinary number, whereas the sigma
of Euler's own scale (latents / alpha) is infinite there. On this scale Euler is exactly DDIM with eta 0, and Euler
ancestral is DDIM with eta 1, so four names need two formulas. tests/unicon/sampling/test_loop.py compares each with
the diffusers scheduler of that name. "lcm" predicts clean latents at every level and adds fresh noise for the next one.

Sources: DDIM arXiv 2010.02502 (equation 12); Euler and Euler ancestral as in k-diffusion; DPM-Solver++(2M)
arXiv 2211.01095 (algorithm 2); latent consistency models arXiv 2310.04378 (algorithm 3); zero terminal SNR and trailing
timesteps arXiv 2305.08891.

Tested in tests/unicon/sampling/test_loop.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from unicon.options import SamplerName

LCM_SIGMA_DATA, LCM_TIMESTEP_SCALING = 0.5, 10.0
"""Constants of the boundary condition with which latent consistency models are distilled."""
PredictionType = Literal["epsilon", "v_prediction", "sample"]


@dataclass(frozen=True, kw_only=True)
class NoiseLevels:
    """The levels of a schedule, noisiest first, and what the model predicts at them.

    Raises:
        ValueError: The prediction type is unknown, or noise is predicted at a level without signal.
    """

    timesteps: tuple[float, ...]
    """The timestep that the model receives at every step index."""
    alphas: tuple[float, ...]
    """Share of the clean latents at every step index and at the end of the last step: one more than timesteps."""
    prediction_type: PredictionType = "epsilon"
    start_scale: float = 1.0
    """Standard deviation of the latents a role starts from at index 0."""

    def __post_init__(self) -> None:
        if self.prediction_type not in get_args(PredictionType):
            raise ValueError(
                f"The model predicts one of {get_args(PredictionType)}; its scheduler says {self.prediction_type!r}. "
                "Choose another base model, or correct scheduler/scheduler_config.json."
            )
        if self.prediction_type == "epsilon" and min(self.alphas) <= 0:
            raise ValueError(
                "Predicting noise says nothing about the image where there is only noise; this schedule has zero "
                "terminal SNR and prediction_type epsilon. Use a v_prediction model, or timestep_spacing leading."
            )

    @property
    def num_inference_steps(self) -> int:
        return len(self.timesteps)

    def sigma(self, index: int) -> float:
        """Share of the noise at a step index."""
        return math.sqrt(max(1.0 - self.alphas[index] ** 2, 0.0))

    def log_snr(self, index: int) -> float:
        """Half the logarithm of the signal-to-noise ratio: -inf for pure noise, inf without noise."""
        alpha, sigma = self.alphas[index], self.sigma(index)
        if alpha == 0 or sigma == 0:
            return -math.inf if alpha == 0 else math.inf
        return math.log(alpha / sigma)

    def split(self, prediction: Tensor, latents: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Convert a prediction at a step index into (clean latents, noise), all (B, channels, h, w)."""
        alpha, sigma = self.alphas[index], self.sigma(index)
        if self.prediction_type == "v_prediction":
            return alpha * latents - sigma * prediction, alpha * prediction + sigma * latents
        if self.prediction_type == "sample":
            return prediction, (latents - alpha * prediction) / sigma
        return (latents - sigma * prediction) / alpha, prediction


@dataclass(frozen=True)
class Sampler:
    """A sampler by name.

    Raises:
        ValueError: The name is unknown, eta is out of [0, 1], or the sampler has no eta.
    """

    name: SamplerName = "ddim"
    """ "ddim"; "euler" (the same as ddim with eta 0); "euler_ancestral" (as ddim with eta 1, stochastic);
    "dpmsolver++" (second order, multistep, deterministic); "lcm" (latent consistency, stochastic, a few steps)."""
    eta: float = 0.0
    """Stochasticity of ddim: 0 none, 1 as much as in training (DDPM)."""

    def __post_init__(self) -> None:
        if self.name not in get_args(SamplerName):
            raise ValueError(f"A sampler is one of {get_args(SamplerName)}; got {self.name!r}. Correct the name.")
        if not 0.0 <= self.eta <= 1.0 or (self.eta and self.name != "ddim"):
            raise ValueError(
                f"eta lies in [0, 1] and belongs to ddim; got eta={self.eta} with {self.name!r}. "
                "Use sampler='ddim', or 'euler_ancestral' without eta."
            )

    def step(
        self, prediction: Tensor, latents: Tensor, levels: NoiseLevels, index: int, *,
        previous: Tensor | None = None, generators: Sequence[torch.Generator] | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Take one step; returns (latents at index + 1, predicted clean latents), both (B, channels, h, w).

        `previous` are the clean latents predicted in the step before, at index - 1, or None in a role's first step.
        Stochastic samplers draw from `generators`, one per row.
        """
        clean, noise = levels.split(prediction, latents, index)
        if self.name == "dpmsolver++":
            return dpmsolver_step(clean, latents, levels, index, previous), clean
        if self.name == "lcm":
            return lcm_step(clean, latents, levels, index, generators), clean
        eta = 1.0 if self.name == "euler_ancestral" else self.eta
        return ddim_step(clean, noise, levels, index, eta, generators), clean


def ddim_step(
    clean: Tensor, noise: Tensor, levels: NoiseLevels, index: int, eta: float = 0.0,
    generators: Sequence[torch.Generator] | None = None,
) -> Tensor:  # fmt: skip
    """DDIM: alpha' * clean + sqrt(sigma'^2 - s^2) * noise + s * fresh noise at the next level, where s grows with eta.

    Raises:
        ValueError: Fresh noise is needed and there are no generators.
    """
    alpha, following = levels.alphas[index], levels.alphas[index + 1]
    sigma = levels.sigma(index + 1)
    fresh = eta * sigma / levels.sigma(index) * math.sqrt(max(1.0 - (alpha / following) ** 2, 0.0))
    stepped = following * clean + math.sqrt(max(sigma**2 - fresh**2, 0.0)) * noise
    return stepped + fresh * _fresh_noise(clean, generators) if fresh else stepped


def lcm_step(
    clean: Tensor, latents: Tensor, levels: NoiseLevels, index: int,
    generators: Sequence[torch.Generator] | None = None,
) -> Tensor:  # fmt: skip
    """LCM: the clean latents of the consistency function, with fresh noise of the next level if that has any.

    The function is c_skip * latents + c_out * clean, which gives the latents themselves at timestep 0.

    Raises:
        ValueError: Fresh noise is needed and there are no generators.
    """
    scaled = levels.timesteps[index] * LCM_TIMESTEP_SCALING
    skip = LCM_SIGMA_DATA**2 / (scaled**2 + LCM_SIGMA_DATA**2)
    denoised = scaled / math.hypot(scaled, LCM_SIGMA_DATA) * clean + skip * latents
    sigma = levels.sigma(index + 1)
    stepped = levels.alphas[index + 1] * denoised
    return stepped + sigma * _fresh_noise(clean, generators) if sigma else stepped


def _fresh_noise(like: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
    if generators is None:
        raise ValueError("A stochastic sampler needs one generator for each row; got none. Give generators, or eta=0.")
    return row_noise(like.shape[1:], generators, like.device)


def dpmsolver_step(clean: Tensor, latents: Tensor, levels: NoiseLevels, index: int, previous: Tensor | None) -> Tensor:
    """DPM-Solver++(2M). The first step of a role and the step to the clean end are of first order."""
    alpha, sigma = levels.alphas[index], levels.sigma(index)
    following, following_sigma = levels.alphas[index + 1], levels.sigma(index + 1)
    decay = following_sigma / sigma
    if previous is not None and following_sigma > 0:
        width = levels.log_snr(index + 1) - levels.log_snr(index)
        width_before = levels.log_snr(index) - levels.log_snr(index - 1)
        clean = clean + (0.5 * width / width_before) * (clean - previous)
    return decay * latents + (following - alpha * decay) * clean


def row_noise(shape: Sequence[int], generators: Sequence[torch.Generator], device: torch.device) -> Tensor:
    """Standard normal noise, float32 (len(generators), *shape). Each row is drawn on the CPU from its own generator."""
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators]).to(device)
