"""The sampling loop: a function of a denoiser, latents, a scheduler and a step table.

Shapes: B rows, (channels, h, w) latents. Rows of one role are adjacent: `roles[r]` is the slice of role r, in the order
of the step table's columns.

The scheduler is diffusers' (DDIM, Euler and others that need no history of predictions), used without its state: every
call works on a shallow copy that knows its index.

Source: arXiv 2410.11439, section 3.3; the published start, step and mask rules.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from unicon.schedule import StepTable

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(latents, timesteps (B,)) -> prediction"""


def with_timesteps(scheduler: SchedulerMixin, num_inference_steps: int) -> SchedulerMixin:
    """A new scheduler whose timesteps are set, on the CPU; the given one stays as it is."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(num_inference_steps, device="cpu")  # type: ignore[attr-defined]
    return scheduler


def _at(scheduler: SchedulerMixin, index: int) -> SchedulerMixin:
    """A shallow copy that stands at a step index."""
    scheduler = copy.copy(scheduler)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)
        scheduler._step_index = None
    return scheduler


def noisy_latents(scheduler: SchedulerMixin, clean: Tensor, noise: Tensor, index: int) -> Tensor:
    """Clean latents noised to a step index; unchanged at the clean end (index = number of steps)."""
    if index >= len(scheduler.timesteps):  # type: ignore[attr-defined]
        return clean
    timestep = scheduler.timesteps[index].reshape(1)  # type: ignore[attr-defined]
    return _at(scheduler, index).add_noise(clean, noise, timestep.expand(len(clean)))  # type: ignore[attr-defined]


def starting_latents(
    scheduler: SchedulerMixin, table: StepTable, roles: Sequence[slice], clean: Tensor, noise: Tensor
) -> Tensor:
    """Where every role starts, (B, channels, h, w): pure noise at index 0, else its clean latents noised to its index.

    `clean` is read only for roles that start later than 0.
    """
    parts = []
    for rows, index in zip(roles, table.indices[0], strict=True):
        if index == 0:
            parts.append(noise[rows] * scheduler.init_noise_sigma)  # type: ignore[attr-defined]
        else:
            parts.append(noisy_latents(scheduler, clean[rows], noise[rows], index))
    return torch.cat(parts)


def step(
    scheduler: SchedulerMixin,
    prediction: Tensor,
    latents: Tensor,
    index: int,
    *,
    eta: float = 0.0,
    generators: Sequence[torch.Generator] | None = None,
) -> Tensor:
    """One step of some rows from a step index to the next, (B, channels, h, w).

    `eta` > 0 (DDIM) draws every row's noise from its own generator.
    """
    timestep = scheduler.timesteps[index]  # type: ignore[attr-defined]
    options: dict = {}
    if eta > 0.0:
        if generators is None or "variance_noise" not in inspect.signature(scheduler.step).parameters:  # type: ignore
            raise ValueError(
                f"Stochastic sampling needs DDIM and one generator a row; got {type(scheduler).__name__}, generators "
                f"{'absent' if generators is None else 'given'}. Use DDIMScheduler, or eta=0."
            )
        options = {
            "eta": eta,
            "variance_noise": row_noise(latents.shape[1:], generators, latents.device, latents.dtype),
        }
    scheduler = _at(scheduler, index)
    if hasattr(scheduler, "is_scale_input_called"):
        scheduler.is_scale_input_called = True
    return scheduler.step(prediction, timestep, latents, return_dict=False, **options)[0]  # type: ignore[attr-defined]


def row_noise(
    shape: Sequence[int], generators: Sequence[torch.Generator], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Standard normal noise (len(generators), *shape), every row from its own CPU generator, drawn in fp32."""
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators]).to(device, dtype)


@torch.no_grad()
def sample(
    denoise: Denoise,
    latents: Tensor,
    scheduler: SchedulerMixin,
    table: StepTable,
    roles: Sequence[slice],
    *,
    clean: Tensor | None = None,
    noise: Tensor | None = None,
    mask: Tensor | None = None,
    eta: float = 0.0,
    generators: Sequence[torch.Generator] | None = None,
) -> Tensor:
    """Run a step table from `starting_latents` to the end, (B, channels, h, w).

    scheduler: from `with_timesteps`. mask: (B, 1, h, w), 1 generate, 0 keep; kept places follow `clean` noised with
    `noise`. generators: one a row, for eta > 0.
    Errors: ValueError when roles do not fit the table or a mask comes without clean latents and noise.
    """
    _check_sample(table, roles, clean, noise, mask, scheduler)
    timesteps = row_timesteps(scheduler, table, roles, latents.device)
    for iteration, indices in enumerate(table.indices):
        prediction = denoise(scaled_input(scheduler, latents, indices, roles), timesteps[iteration])
        parts = []
        for role, (rows, index) in enumerate(zip(roles, indices, strict=True)):
            role_latents = latents[rows]
            if table.advances(iteration, role):
                row_generators = None if generators is None else generators[rows]
                role_latents = step(
                    scheduler, prediction[rows], role_latents, index, eta=eta, generators=row_generators
                )
            parts.append(role_latents)
        latents = torch.cat(parts)
        if mask is not None and clean is not None and noise is not None:
            latents = _keep(scheduler, table, roles, iteration, latents, clean, noise, mask)
    return latents


def row_timesteps(scheduler: SchedulerMixin, table: StepTable, roles: Sequence[slice], device: torch.device) -> Tensor:
    """Timestep of every row at every iteration, (iterations, B) on the device; 0 at the clean end."""
    levels = scheduler.timesteps.cpu()  # type: ignore[attr-defined]
    levels = torch.cat([levels, levels.new_zeros(1)])
    sizes = torch.tensor([rows.stop - rows.start for rows in roles])
    return levels[torch.tensor(table.indices)].repeat_interleave(sizes, dim=1).to(device)


def scaled_input(scheduler: SchedulerMixin, latents: Tensor, indices: Sequence[int], roles: Sequence[slice]) -> Tensor:
    """Latents (B, channels, h, w) as the UNet wants them: divided by the noise level for Euler, unchanged for DDIM."""
    if scheduler.init_noise_sigma == 1.0:  # type: ignore[attr-defined]
        return latents
    scaled = []
    for rows, index in zip(roles, indices, strict=True):
        at_end = index >= len(scheduler.timesteps)  # type: ignore[attr-defined]
        at_index = None if at_end else _at(scheduler, index)
        scaled.append(
            latents[rows] if at_index is None else at_index.scale_model_input(latents[rows], scheduler.timesteps[index])  # type: ignore[attr-defined]
        )
    return torch.cat(scaled).to(latents.dtype)


def _keep(
    scheduler: SchedulerMixin, table: StepTable, roles: Sequence[slice], iteration: int,
    latents: Tensor, clean: Tensor, noise: Tensor, mask: Tensor,
) -> Tensor:  # fmt: skip
    """Reset kept places to the clean latents at the noise level of the next iteration, clean after the last."""
    last = iteration == len(table.indices) - 1
    following = [table.num_inference_steps] * len(roles) if last else table.indices[iteration + 1]
    kept = torch.cat([
        noisy_latents(scheduler, clean[rows], noise[rows], index) for rows, index in zip(roles, following, strict=True)
    ])  # fmt: skip
    return mask * latents + (1 - mask) * kept


def _check_sample(
    table: StepTable, roles: Sequence[slice], clean: Tensor | None, noise: Tensor | None,
    mask: Tensor | None, scheduler: SchedulerMixin,
) -> None:  # fmt: skip
    steps = len(scheduler.timesteps)  # type: ignore[attr-defined]
    if len(roles) != table.num_roles or steps != table.num_inference_steps:
        raise ValueError(
            f"A step table fits its roles and its scheduler; the table has {table.num_roles} roles and "
            f"{table.num_inference_steps} steps, the call {len(roles)} roles and a scheduler of {steps} steps. "
            "Set the scheduler with with_timesteps(scheduler, table.num_inference_steps)."
        )
    if mask is not None and (clean is None or noise is None):
        raise ValueError("A mask needs the clean latents and the noise that kept places follow. Give clean and noise.")
