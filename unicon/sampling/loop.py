"""The sampling loop: a function of a denoiser, latents, noise levels and a step table.

Shapes: B rows, (channels, h, w) latents. Rows of one role are adjacent: `roles[r]` is the slice of role r, in the order
of the step table's columns. Latents are float32 between the steps, whatever the dtype of the model.

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
"""(latents, timesteps (B,)) -> prediction"""

SCHEDULE_KEYS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
                 "rescale_betas_zero_snr", "steps_offset")  # fmt: skip
"""What of a folder's scheduler describes the model; the rest describes a way of sampling."""
SPACED_ON_THEIR_OWN: dict[str, type[SchedulerMixin]] = {
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerDiscreteScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
}
"""Samplers whose diffusers scheduler has a linspace spacing of its own, timesteps between whole numbers among them."""


def noise_levels(schedule: Mapping[str, Any], options: SamplingOptions) -> NoiseLevels:
    """The noise levels at which `options` sample a model, whose steps they name.

    schedule: the configuration of the model's scheduler, of which `SCHEDULE_KEYS` count.
    Errors: ValueError for more steps than the schedule has timesteps, and as `NoiseLevels`.
    """
    steps = options.num_inference_steps
    assert steps is not None, "with_defaults has decided"
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
    """The noise levels of a diffusers scheduler for a number of steps; it stays as it is.

    Errors: ValueError for more steps than the schedule has timesteps, and as `NoiseLevels`.
    """
    stepped: Any = copy.deepcopy(scheduler)
    most = stepped.config.num_train_timesteps
    if num_inference_steps > most:
        raise ValueError(f"The number of steps cannot be larger than {most}, the model's timesteps; got "
                         f"{num_inference_steps}. 10 to 50 are usual.")  # fmt: skip
    with warnings.catch_warnings():  # diffusers' Euler makes an array of a tensor in a way that NumPy 2 deprecates
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        stepped.set_timesteps(num_inference_steps, device="cpu")
    timesteps = stepped.timesteps[:num_inference_steps]  # trailing spacing rounds to one too many at times
    start_scale = 1.0
    if float(timesteps.max()) >= most:
        raise ValueError(
            f"Leading timesteps with an offset of {stepped.config.steps_offset} end before {most}; "
            f"{num_inference_steps} steps lead beyond. Use fewer steps, or another timestep_spacing."
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
    """Clean latents noised to a step index; unchanged at the clean end (index = number of steps)."""
    if index >= levels.num_inference_steps:
        return clean
    return levels.alphas[index] * clean + levels.sigma(index) * noise


def starting_latents(
    levels: NoiseLevels, table: StepTable, roles: Sequence[slice], clean: Tensor, noise: Tensor
) -> Tensor:
    """Where every role starts, (B, channels, h, w): pure noise at index 0, else its clean latents noised to its index.

    `clean` is read only for roles that start later than 0.
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

    levels: from `with_timesteps`. mask: (B, 1, h, w), 1 generate, 0 keep; kept places follow `clean` noised with
    `noise`. generators: one a row, for stochastic samplers. What a multistep sampler knows of the step before is kept
    here, for every role by itself: a role that stands still keeps it.
    Errors: ValueError when roles do not fit the table or a mask comes without clean latents and noise.
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
    """Timestep of every row at every iteration, float32 (iterations, B) on the device; 0 at the clean end."""
    timesteps = torch.tensor([*levels.timesteps, 0.0])
    sizes = torch.tensor([rows.stop - rows.start for rows in roles])
    return timesteps[torch.tensor(table.indices)].repeat_interleave(sizes, dim=1).to(device)


def _kept(
    levels: NoiseLevels, table: StepTable, roles: Sequence[slice], iteration: int, clean: Tensor, noise: Tensor
) -> Tensor:
    """The clean latents at the noise level of the next iteration, clean after the last."""
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
