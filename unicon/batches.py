# diffusers declares its configurations as plain dictionaries.
# pyright: reportAttributeAccessIssue=false
"""Sampling one micro-batch: from requests of one working size and their pixels to the latents of the results.

The rows of the UNet's batch are branches (`unicon.requests.Branch`), each with one row for every request.

Shapes: B requests of a micro-batch, R roles (the image, then the conditions of a plan), (channels, h, w) latents.

Tested in tests/unicon/test_generation.py and tests/unicon/test_one_way.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from unicon import images as image_tools
from unicon.adapters.merged import is_merged
from unicon.backbone import Backbone
from unicon.layout import Rows
from unicon.one_way import StaticRows
from unicon.requests import GenerationPlan, RowRequest
from unicon.sampling.guidance import Denoiser
from unicon.sampling.loop import noise_levels, row_timesteps, sample, starting_latents
from unicon.sampling.samplers import NoiseLevels, Sampler, row_noise
from unicon.sampling.step_table import StepTable, from_paths

EncodedImages = dict[tuple[int, tuple[int, int]], tuple[Image.Image, Tensor]]
"""(identity of an image, working size) -> the image and its latents (channels, h, w)."""


def given_pixels(
    model: Backbone, batch: Sequence[RowRequest], plan: GenerationPlan, encoded: EncodedImages
) -> list[Tensor | None]:
    """The images and maps of the rows for the VAE, by role: (B, 3, height, width) on the CPU, or None.

    Images are those of `new_images` in uint8, so that fewer bytes go to the device; maps are float32 in [-1, 1]. For a
    CUDA device the memory is pinned, which makes copies to it fast.
    """
    size = batch[0].working_size
    images = new_images(batch, encoded)
    pixels = [torch.stack([image_tools.to_bytes(image, size) for image in images]) if images else None]
    for adapter in plan.adapters:
        maps = [request.maps[adapter] for request in batch if adapter in request.maps]
        to_model = model.adapter_kind(adapter).to_model
        resized = [to_model(image_tools.resize_map(values, size)) for values in maps]
        pixels.append(torch.stack(resized) if resized else None)
    if model.device.type != "cuda":
        return pixels
    return [None if given is None else given.pin_memory() for given in pixels]


def new_images(batch: Sequence[RowRequest], encoded: EncodedImages) -> list[Image.Image]:
    """The images that are not yet encoded. One that several rows share, as in an ensemble, occurs once."""
    images = {id(request.image): request.image for request in batch if request.image is not None}
    return [image for image in images.values() if (id(image), batch[0].working_size) not in encoded]


def encode_given(
    model: Backbone, batch: Sequence[RowRequest], pixels: Sequence[Tensor | None], encoded: EncodedImages
) -> Tensor:
    """Encode the images and maps of the rows, float32 (R, B, channels, h, w). Absent ones are zero.

    The latents of new images are added to `encoded`.
    """
    width, height = batch[0].working_size
    shape = (len(batch), model.unet.config.in_channels, height // model.vae_scale, width // model.vae_scale)
    roles = [
        torch.zeros(shape, device=model.device) if given is None else model.encode_images(given).float()
        for given in pixels
    ]
    if batch[0].image is not None:
        for image, latents in zip(new_images(batch, encoded), roles[0], strict=False):
            encoded[id(image), (width, height)] = (image, latents)
        roles[0] = torch.stack([encoded[id(request.image), (width, height)][1] for request in batch])
    return torch.stack(roles)


@dataclass(frozen=True, kw_only=True)
class Start:
    """The branches of a batch before the first step."""

    clean: Tensor
    """(branches * B, channels, h, w); zero where nothing is given."""
    noise: Tensor
    """(branches * B, channels, h, w); zero for branches at the clean end."""
    generators: Sequence[torch.Generator]
    """For every row."""

    def take(self, rows: Rows) -> Start:
        """Some of the rows."""
        generators = [self.generators[row] for row in rows.indices]
        return Start(clean=rows.take(self.clean), noise=rows.take(self.noise), generators=generators)


def start_of(batch: Sequence[RowRequest], plan: GenerationPlan, clean: Tensor) -> Start:
    """The start of a batch from its encoded inputs (R, B, channels, h, w).

    In every run, the generator of a row first draws the starting noise of every generated role, in the order of the
    roles, then the fresh noise of stochastic steps.
    """
    names = dict.fromkeys(branch.run for branch in plan.branches)
    runs = {run: [torch.Generator().manual_seed(request.seed) for request in batch] for run in names}
    noise: dict[tuple[int, int], Tensor] = {}
    for run, generators in runs.items():
        for role in (0, run + 1) if plan.separate else range(len(clean)):
            still = plan.table.is_clean(role)
            noise[role, run] = torch.zeros_like(clean[role]) if still else row_noise(
                clean.shape[2:], generators, clean.device
            )  # fmt: skip
    return Start(
        clean=torch.cat([clean[branch.role] for branch in plan.branches]),
        noise=torch.cat([noise[branch] for branch in plan.branches]),
        generators=[generator for branch in plan.branches for generator in runs[branch.run]],
    )


@torch.no_grad()
def sample_batch(
    model: Backbone, batch: Sequence[RowRequest], plan: GenerationPlan, pixels: Sequence[Tensor | None],
    encoded: EncodedImages,
) -> dict[int, Tensor]:  # fmt: skip
    """Sample requests of one working size.

    Args:
        model: The model.
        batch: The requests.
        plan: Their plan.
        pixels: Those of `given_pixels`.
        encoded: Images that are already encoded. Those of the batch are added.

    Returns:
        Role -> final latents, float32 (B, channels, h, w), for roles that are generated.
    """
    start = start_of(batch, plan, encode_given(model, batch, pixels, encoded))
    levels = noise_levels(
        model.scheduler.config, replace(plan.sampling, num_inference_steps=plan.table.num_inference_steps)
    )
    static, moving = _static_and_moving(model, plan)
    rows, table, roles = _rows_of(moving, plan, len(batch))
    denoiser = _denoiser(model, batch, plan)
    if static:
        denoiser = replace(denoiser, static=_static_rows(model, batch, plan, start, levels, static, rows))
    own = start.take(rows)
    latents = sample(
        denoiser,
        starting_latents(levels, table, roles, own.clean, own.noise),
        levels,
        table,
        roles,
        sampler=Sampler(plan.sampling.sampler, plan.sampling.eta),
        clean=own.clean,
        noise=own.noise,
        mask=_masks(model, batch, len(roles)),
        generators=own.generators,
    )
    found = {plan.branches[at].role: latents[part] for at, part in zip(moving, roles, strict=True)}
    return {
        role: rows for role, rows in found.items() if role not in plan.given and not plan.table.is_clean(role)
    }  # fmt: skip


def _static_and_moving(model: Backbone, plan: GenerationPlan) -> tuple[list[int], list[int]]:
    """The branches that are run once, and those that are run in every step; in the training form, all of them."""
    static = plan.static if is_merged(model.unet) else frozenset()
    places = range(len(plan.branches))
    return (
        [at for at in places if plan.branches[at].role in static],
        [at for at in places if plan.branches[at].role not in static],
    )


def _rows_of(branches: Sequence[int], plan: GenerationPlan, size: int) -> tuple[Rows, StepTable, list[slice]]:
    """(rows of the batch, step table, slices within the rows) of some branches."""
    rows = Rows(tuple(at * size + row for at in branches for row in range(size)))
    table = from_paths([plan.table.path(plan.branches[at].role) for at in branches], plan.table.num_inference_steps)
    return rows, table, [slice(at * size, (at + 1) * size) for at in range(len(branches))]


def _static_rows(
    model: Backbone, batch: Sequence[RowRequest], plan: GenerationPlan, start: Start, levels: NoiseLevels,
    static: Sequence[int], moving: Rows,
) -> StaticRows:  # fmt: skip
    rows, table, roles = _rows_of(static, plan, len(batch))
    own = start.take(rows)
    prompts, negative_prompts = _prompts(model, batch, plan)
    return StaticRows(
        rows=rows,
        moving=moving,
        latents=starting_latents(levels, table, roles, own.clean, own.noise),
        timesteps=row_timesteps(levels, table, roles, own.clean.device)[0],
        projections={adapter: model.adapters[adapter].projection for adapter in plan.adapters},
        ignores_negative=all(prompts[row] == negative_prompts[row] for row in rows.indices),
    )


def triggers_of(model: Backbone, plan: GenerationPlan) -> list[str]:
    """The text before the prompts of every role."""
    return ["", *(model.adapters[adapter].trigger or "" for adapter in plan.adapters)]


def _prompts(model: Backbone, batch: Sequence[RowRequest], plan: GenerationPlan) -> tuple[list[str], list[str]]:
    """(prompts, negative prompts) of all rows. Triggers precede the prompts of conditions, not the negative ones."""
    triggers = triggers_of(model, plan)
    prompts = [triggers[branch.role] + request.prompt for branch in plan.branches for request in batch]
    return prompts, [request.negative_prompt for request in batch] * len(plan.branches)


def _denoiser(model: Backbone, batch: Sequence[RowRequest], plan: GenerationPlan) -> Denoiser:
    """The denoiser of a batch."""
    prompts, negative_prompts = _prompts(model, batch, plan)
    guidance_scale = plan.sampling.guidance_scale
    assert guidance_scale is not None, "with_defaults has decided"
    return Denoiser(
        unet=model.unet,
        pairs=plan.pairs(len(batch)),
        prompt_embeds=model.encode_prompts(prompts),
        negative_prompt_embeds=model.encode_prompts(negative_prompts) if guidance_scale != 1.0 else None,
        guidance_scale=guidance_scale,
        condition_guidance_scale=plan.sampling.condition_guidance_scale,
        run=model.run_unet,
    )


def _masks(model: Backbone, batch: Sequence[RowRequest], num_branches: int) -> Tensor | None:
    """Masks (branches * B, 1, h, w), or None where no row has one."""
    masks = [
        image_tools.latent_mask(request.mask, request.working_size, model.vae_scale)
        for request in batch
        if request.mask is not None
    ]
    return torch.stack(masks).to(model.device).repeat(num_branches, 1, 1, 1) if masks else None
