# diffusers declares its configurations as plain dictionaries.
# pyright: reportAttributeAccessIssue=false
"""The sampling loop: a function of a denoiser, latents, noise levels and a step table.

Rows of one role are adjacent: `roles[r]` is the slice of role r, in the order of the step table's columns. Latents are
float32 between the steps, whatever the dtype of the model.

Shapes: B rows, (channels, h, w) latents.

Source: arXiv 2410.11439, section 3.3; the published start, step and mask rules.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, LCMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from unicon.options import SamplingOptions
from unicon.sampling.samplers import NoiseLevels, Sampler
from unicon.sampling.step_table import StepTable

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(latents, timesteps (B,)) -> prediction."""

SCHEDULE_KEYS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
                 "rescale_betas_zero_snr", "steps_offset")  # fmt: skip
"""Values of a scheduler configuration that describe the model. The others describe a way of sampling."""
SPACED_ON_THEIR_OWN: dict[str, type[SchedulerMixin]] = {
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerDiscreteScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
}
"""Samplers whose diffusers scheduler has its own linspace spacing, with fractional timesteps."""


def noise_levels(schedule: Mapping[str, Any], options: SamplingOptions) -> NoiseLevels:
    """The noise levels at which a model is sampled.

    Args:
        schedule: The configuration of the model's scheduler. Only `SCHEDULE_KEYS` are used.
        options: Sampling options with a decided number of steps.

    Raises:
        ValueError: There are more steps than the schedule has timesteps, or as for `NoiseLevels`.
    """
    steps = options.steps
    model = {key: schedule[key] for key in SCHEDULE_KEYS if key in schedule}
    if options.sampler == "lcm":
        return with_timesteps(LCMScheduler(**model), steps)
    spacing = options.timestep_spacing or "trailing"
    if spacing == "linspace" and options.sampler in SPACED_ON_THEIR_OWN:
        scheduler: Any = SPACED_ON_THEIR_OWN[options.sampler]
        return with_timesteps(scheduler(**model, timestep_spacing=spacing), steps)
    return with_timesteps(
        DDIMScheduler(
            **model, timestep_spacing=spacing, clip_sample=False, set_alpha_to_one=options.set_alpha_to_one
        ),
        steps,
    )  # fmt: skip


def with_timesteps(scheduler: SchedulerMixin, num_inference_steps: int) -> NoiseLevels:
    """The noise levels of a diffusers scheduler for a number of steps. The scheduler does not change.

    Raises:
        ValueError: There are more steps than the schedule has timesteps, or as for `NoiseLevels`.
    """
    stepped: Any = copy.deepcopy(scheduler)
    most = stepped.config.num_train_timesteps
    if num_inference_steps > most:
        raise ValueError(f"The number of steps cannot be larger than {most}, the model's timesteps; got "
                         f"{num_inference_steps}. 10 to 50 are usual.")  # fmt: skip
    with warnings.catch_warnings():  # diffusers' Euler converts a tensor to an array in a way that NumPy 2 deprecates
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        stepped.set_timesteps(num_inference_steps, device="cpu")
    timesteps = stepped.timesteps[:num_inference_steps]  # trailing spacing sometimes rounds to one too many
    start_scale = 1.0
    if float(timesteps.max()) >= most:
        raise ValueError(
            f"Leading timesteps with an offset of {stepped.config.steps_offset} end before {most}; "
            f"{num_inference_steps} steps would go beyond it. Use fewer steps, or another timestep_spacing."
        )
    if hasattr(stepped, "sigmas"):
        alphas = (1 + stepped.sigmas[: num_inference_steps + 1].double() ** 2).rsqrt()
        if not isinstance(stepped, DPMSolverMultistepScheduler):  # Euler's latents are divided by alpha
            start_scale = float(stepped.init_noise_sigma * alphas[0])
    else:
        squared = torch.cat([stepped.alphas_cumprod[timesteps], stepped.final_alpha_cumprod.reshape(1)])
        alphas = squared.double().sqrt()
    return NoiseLevels(
        timesteps=tuple(timesteps.tolist()),
        alphas=tuple(alphas.tolist()),
        prediction_type=stepped.config.prediction_type,
        start_scale=start_scale,
    )


def noisy_latents(levels: NoiseLevels, clean: Tensor, noise: Tensor, index: int) -> Tensor:
    """Add noise to clean latents up to a step index. They do not change at the clean end (index = number of steps)."""
    if index >= levels.num_inference_steps:
        return clean
    return levels.alphas[index] * clean + levels.sigma(index) * noise


def starting_latents(
    levels: NoiseLevels, table: StepTable, roles: Sequence[slice], clean: Tensor, noise: Tensor
) -> Tensor:
    """The latents from which every role starts, (B, channels, h, w).

    A role that starts at index 0 starts from pure noise, any other role from its clean latents, noised to its first
    index. `clean` is read only for the latter.
    """
    parts = []
    for rows, index in zip(roles, table.indices[0], strict=True):
        started = noise[rows] * levels.start_scale
        parts.append(started if index == 0 else noisy_latents(levels, clean[rows], noise[rows], index))
    return torch.cat(parts)


@torch.no_grad()
def sample(
    denoise: Denoise,
    latents: Tensor,
    levels: NoiseLevels,
    table: StepTable,
    roles: Sequence[slice],
    *,
    sampler: Sampler = Sampler(),  # noqa: B008 - a frozen value
    clean: Tensor | None = None,
    noise: Tensor | None = None,
    mask: Tensor | None = None,
    generators: Sequence[torch.Generator] | None = None,
) -> Tensor:
    """Run a step table from `starting_latents` to the end, (B, channels, h, w).

    `levels` come from `with_timesteps`. `mask` (B, 1, h, w) is 1 where latents are generated and 0 where they are kept;
    kept places follow `clean` noised with `noise`. Stochastic samplers need `generators`, one per row. The state of a
    multistep sampler is held here for every role, and does not change while the role stands still.

    Raises:
        ValueError: The roles do not fit the table, or a mask is given without clean latents and noise.
    """
    _check_sample(levels, table, roles, clean, noise, mask)
    timesteps = row_timesteps(levels, table, roles, latents.device)
    previous: list[Tensor | None] = [None] * len(roles)
    for iteration, indices in enumerate(table.indices):
        prediction = denoise(latents, timesteps[iteration])
        parts = [latents[rows] for rows in roles]
        for role, (rows, index) in enumerate(zip(roles, indices, strict=True)):
            if table.advances(iteration, role):
                own = None if generators is None else generators[rows]
                parts[role], previous[role] = sampler.step(
                    prediction[rows], parts[role], levels, index, previous=previous[role], generators=own
                )
        latents = torch.cat(parts)
        if mask is not None and clean is not None and noise is not None:
            latents = mask * latents + (1 - mask) * _kept(levels, table, roles, iteration, clean, noise)
    return latents


def row_timesteps(levels: NoiseLevels, table: StepTable, roles: Sequence[slice], device: torch.device) -> Tensor:
    """The timestep of every row at every iteration, float32 (iterations, B) on the device; 0 at the clean end."""
    timesteps = torch.tensor([*levels.timesteps, 0.0])
    sizes = torch.tensor([rows.stop - rows.start for rows in roles])
    return timesteps[torch.tensor(table.indices)].repeat_interleave(sizes, dim=1).to(device)


def _kept(
    levels: NoiseLevels, table: StepTable, roles: Sequence[slice], iteration: int, clean: Tensor, noise: Tensor
) -> Tensor:
    """The clean latents at the noise level of the next iteration, without noise after the last one."""
    last = iteration == len(table.indices) - 1
    following = [table.num_inference_steps] * len(roles) if last else table.indices[iteration + 1]
    return torch.cat([
        noisy_latents(levels, clean[rows], noise[rows], index) for rows, index in zip(roles, following, strict=True)
    ])  # fmt: skip


def _check_sample(
    levels: NoiseLevels, table: StepTable, roles: Sequence[slice], clean: Tensor | None, noise: Tensor | None,
    mask: Tensor | None,
) -> None:  # fmt: skip
    steps = levels.num_inference_steps
    if len(roles) != table.num_roles or steps != table.num_inference_steps:
        raise ValueError(
            f"A step table fits its roles and its noise levels; the table has {table.num_roles} roles and "
            f"{table.num_inference_steps} steps, the call {len(roles)} roles and {steps} levels. "
            "Make the levels with with_timesteps(scheduler, table.num_inference_steps)."
        )
    if mask is not None and (clean is None or noise is None):
        raise ValueError("A mask needs the clean latents and the noise that kept places follow. Give clean and noise.")
