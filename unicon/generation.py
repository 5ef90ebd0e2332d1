# diffusers declares its configurations as plain dictionaries.
# pyright: reportAttributeAccessIssue=false
"""From requests to results: the one path for all tasks, whatever is given and whatever is generated.

A `RowRequest` is one row: its inputs (image, maps, mask) and what is asked for (prompt, seed, sizes). A
`GenerationPlan` holds what all rows of a call share: roles and their paths, weights, guidance, sampler. A role whose
path stays at the clean end is given. Every other role is generated, inside the request's mask if it has one.

Shapes: B rows of a micro-batch, R roles (the image, then the conditions of a plan), (channels, h, w) latents.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unicon import images as image_tools
from unicon.backbone import Backbone
from unicon.options import MAX_WEIGHT, SamplingOptions, check_whole
from unicon.outcomes import Failure
from unicon.pairs import Pair, Pairs
from unicon.sampling.guidance import Denoiser
from unicon.sampling.loop import noise_levels, sample, starting_latents
from unicon.sampling.samplers import Sampler, row_noise
from unicon.sampling.step_table import StepTable

Weight = float | tuple[float, float]
"""Weight of the joint attention of an adapter: one for both sides, or (to the image, to the condition)."""
MAX_BATCH_SIZE = 65_536


@dataclass(frozen=True)
class Generated:
    """An image with its conditions."""

    image: Image.Image
    """8-bit RGB."""
    conditions: dict[str, np.ndarray]
    """Adapter name -> map. Given maps are returned as they were given, others have the size of the image."""
    prompt_tokens_cut: int = 0
    """Tokens by which the prompt, with the longest trigger text before it, exceeded the text encoder's limit."""


@dataclass(frozen=True, kw_only=True)
class RowRequest:
    """One row: its inputs and what is asked for. The result of a row is a function of this and the plan."""

    working_size: tuple[int, int]
    """(width, height) at which the model works. Requests of one working size share micro-batches."""
    size: tuple[int, int]
    """(width, height) of the result."""
    seed: int
    """Seed of the generator from which all random numbers of the row come."""
    prompt: str = ""
    negative_prompt: str = ""
    image: Image.Image | None = None
    """8-bit RGB. Needed where the image is given or partly kept."""
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Adapter name -> map. Needed for conditions that are given, partly kept, or start part-way."""
    mask: np.ndarray | None = None
    """float32 (H, W) of the result's size: 1 generates, 0 keeps. For None, everything is generated."""


@dataclass(frozen=True, kw_only=True)
class GenerationPlan:
    """What all rows of a call share.

    Raises:
        ValueError: The batch size or a weight is out of range, or the adapters and weights do not fit each other.
    """

    adapters: tuple[str, ...]
    """Adapters of the conditions, which are the roles after the image."""
    table: StepTable
    """The paths of the image and the conditions."""
    given: tuple[int, ...] = ()
    """Roles that are returned as they were given, whatever their path."""
    weights: Mapping[str, Weight] = field(default_factory=dict)
    """Adapter name -> weight; 1 by default."""
    sampling: SamplingOptions = SamplingOptions(guidance_scale=1.0)
    """Sampling options without open defaults."""
    batch_size: int | None = None
    """The largest number of rows in one micro-batch. For None, all rows of one working size."""

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            check_whole("batch_size", self.batch_size, 1, MAX_BATCH_SIZE)
        for name, weight in self.weights.items():
            sides = weight if isinstance(weight, tuple) else (weight, weight)
            if len(sides) != 2 or not all(math.isfinite(side) and abs(side) <= MAX_WEIGHT for side in sides):
                raise ValueError(
                    f"A weight is a number from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}, or one to the image and one to the "
                    f"condition; {name!r} has {weight!r}. 1 is as trained."
                )
        unknown = sorted(set(self.weights) - set(self.adapters))
        if unknown:
            raise ValueError(
                f"Weights belong to the conditions of the call, {list(self.adapters)}; got weights for {unknown}. "
                "Correct the names."
            )
        if len(set(self.adapters)) != len(self.adapters):
            raise ValueError(f"A row has each condition once; got {list(self.adapters)}. Load the adapter twice.")

    def pairs(self, num_rows: int) -> Pairs:
        """The pairs of a batch: images, then the conditions of every adapter in the same order."""
        pairs = []
        for role, adapter in enumerate(self.adapters, start=1):
            weight = self.weights.get(adapter, 1.0)
            sides = weight if isinstance(weight, tuple) else (weight, weight)
            pairs += [Pair(row, role * num_rows + row, adapter, *sides) for row in range(num_rows)]
        return Pairs(tuple(pairs), num_rows * (1 + len(self.adapters)))


def generate(
    model: Backbone, requests: Sequence[RowRequest | Failure], plan: GenerationPlan
) -> list[Generated | Failure]:
    """Run all requests; the outcomes are in their order, and failures among the requests are returned.

    How requests share micro-batches only changes rounding. A micro-batch is prepared and finished on the CPU in the
    caller's thread; what is between uses the device and goes through `Backbone.run_on_device`.
    """
    good = [request for request in requests if not isinstance(request, Failure)]
    results: dict[int, Generated | Failure] = {}
    for rows in micro_batches(good, plan.batch_size):
        batch = [good[row] for row in rows]
        pixels = given_pixels(model, batch, plan)
        sampled = model.run_on_device(partial(_sample_and_decode, model, batch, plan, pixels))
        results |= zip(rows, _finish(model, batch, plan, sampled), strict=True)
    outcomes = iter([results[row] for row in range(len(good))])
    return [request if isinstance(request, Failure) else next(outcomes) for request in requests]


def micro_batches(requests: Sequence[RowRequest], batch_size: int | None) -> Iterator[list[int]]:
    """Yield rows of one working size, at most `batch_size` of them, in order."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for row, request in enumerate(requests):
        by_size.setdefault(request.working_size, []).append(row)
    for rows in by_size.values():
        step = batch_size or len(rows)
        yield from (rows[start : start + step] for start in range(0, len(rows), step))


class Sampled(NamedTuple):
    """The results of a micro-batch, on the CPU."""

    decoded: Mapping[int, Tensor]
    """Role -> (B, 3, height, width) around [-1, 1]; only roles that are generated."""
    finite: Sequence[bool]
    """Whether all decoded values of a row are finite."""
    finite_latents: Sequence[bool]
    """Whether all latents of a row are finite."""
    tokens_cut: Sequence[int]
    """Tokens that were cut off the prompt of a row."""


def _sample_and_decode(
    model: Backbone, batch: Sequence[RowRequest], plan: GenerationPlan, pixels: Sequence[Tensor | None]
) -> Sampled:
    """The part of a micro-batch that uses the device, the tokenizer and the text encoder."""
    latents = sample_batch(model, batch, plan, pixels)
    roles = [role for role in range(len(latents)) if role not in plan.given and not plan.table.is_clean(role)]
    decoded = {role: model.decode_latents(latents[role]) for role in roles}
    triggers = ["", *(model.adapters[adapter].trigger or "" for adapter in plan.adapters)]
    return Sampled(
        {role: tensor.cpu() for role, tensor in decoded.items()},
        _finite_rows(list(decoded.values()), len(batch)),
        _finite_rows([latents[role] for role in roles], len(batch)),
        [max(model.tokens_cut([trigger + request.prompt for trigger in triggers])) for request in batch],
    )


@torch.no_grad()
def sample_batch(
    model: Backbone, batch: Sequence[RowRequest], plan: GenerationPlan, pixels: Sequence[Tensor | None]
) -> Tensor:
    """Sample requests of one working size; returns the final latents, float32 (R, B, channels, h, w).

    `pixels` are those of `given_pixels`.
    The generator of a row first draws the starting noise of every generated role, in the order of the roles, then the
    fresh noise of stochastic steps.
    """
    num_roles, size = 1 + len(plan.adapters), len(batch)
    moving = [not plan.table.is_clean(role) for role in range(num_roles)]
    clean = encode_given(model, batch, pixels)
    generators = [torch.Generator().manual_seed(request.seed) for request in batch]
    noise = torch.zeros_like(clean)
    for role in range(num_roles):
        if moving[role]:
            noise[role] = row_noise(clean.shape[2:], generators, clean.device)
    roles = [slice(role * size, (role + 1) * size) for role in range(num_roles)]
    levels = noise_levels(
        model.scheduler.config, replace(plan.sampling, num_inference_steps=plan.table.num_inference_steps)
    )
    clean, noise = clean.flatten(0, 1), noise.flatten(0, 1)
    latents = sample(
        _denoiser(model, batch, plan),
        starting_latents(levels, plan.table, roles, clean, noise),
        levels,
        plan.table,
        roles,
        sampler=Sampler(plan.sampling.sampler, plan.sampling.eta),
        clean=clean,
        noise=noise,
        mask=_masks(model, batch, num_roles),
        generators=generators * num_roles,
    )
    return latents.unflatten(0, (num_roles, size))


def given_pixels(model: Backbone, batch: Sequence[RowRequest], plan: GenerationPlan) -> list[Tensor | None]:
    """The images and maps of the rows for the VAE, by role: float32 (B, 3, height, width) on the CPU, or None.

    Images are those of `unique_images`.
    """
    size = batch[0].working_size
    images = list(unique_images(batch).values())
    pixels = [torch.stack([image_tools.to_model(image, size) for image in images]) if images else None]
    for adapter in plan.adapters:
        maps = [request.maps[adapter] for request in batch if adapter in request.maps]
        to_model = model.adapter_kind(adapter).to_model
        resized = [to_model(image_tools.resize_map(values, size)) for values in maps]
        pixels.append(torch.stack(resized) if resized else None)
    return pixels


def unique_images(batch: Sequence[RowRequest]) -> dict[int, Image.Image]:
    """The images of the rows by their identity. One that several rows share, as in an ensemble, is encoded once."""
    return {id(request.image): request.image for request in batch if request.image is not None}


def encode_given(model: Backbone, batch: Sequence[RowRequest], pixels: Sequence[Tensor | None]) -> Tensor:
    """Encode the images and maps of the rows, float32 (R, B, channels, h, w). Absent ones are zero."""
    width, height = batch[0].working_size
    shape = (len(batch), model.unet.config.in_channels, height // model.vae_scale, width // model.vae_scale)
    roles = [
        torch.zeros(shape, device=model.device) if given is None else model.encode_images(given).float()
        for given in pixels
    ]
    if pixels[0] is not None:
        unique = list(unique_images(batch))
        roles[0] = roles[0][[unique.index(id(request.image)) for request in batch]]
    return torch.stack(roles)


def _denoiser(model: Backbone, batch: Sequence[RowRequest], plan: GenerationPlan) -> Denoiser:
    """The denoiser of a batch. Trigger texts precede the prompts of condition rows, but not the negative prompts."""
    triggers = ["", *(model.adapters[adapter].trigger or "" for adapter in plan.adapters)]
    prompts = [trigger + request.prompt for trigger in triggers for request in batch]
    negative_prompts = [request.negative_prompt for request in batch] * len(triggers)
    guidance_scale = plan.sampling.guidance_scale
    assert guidance_scale is not None, "with_defaults has decided"
    return Denoiser(
        unet=model.unet,
        pairs=plan.pairs(len(batch)),
        prompt_embeds=model.encode_prompts(prompts),
        negative_prompt_embeds=model.encode_prompts(negative_prompts) if guidance_scale != 1.0 else None,
        guidance_scale=guidance_scale,
        condition_guidance_scale=plan.sampling.condition_guidance_scale,
    )


def _masks(model: Backbone, batch: Sequence[RowRequest], num_roles: int) -> Tensor | None:
    """Masks (R * B, 1, h, w), or None where no row has one."""
    masks = [
        image_tools.latent_mask(request.mask, request.working_size, model.vae_scale)
        for request in batch
        if request.mask is not None
    ]
    return torch.stack(masks).to(model.device).repeat(num_roles, 1, 1, 1) if masks else None


def _finish(
    model: Backbone, batch: Sequence[RowRequest], plan: GenerationPlan, sampled: Sampled
) -> list[Generated | Failure]:
    """Turn decoded rows into images and maps of the results' sizes. Kept pixels do not change."""
    return [
        _finish_row(
            model, request, plan, {role: rows[row] for role, rows in sampled.decoded.items()}, sampled.tokens_cut[row]
        )
        if sampled.finite[row]
        else Failure(_not_finite(model, by_vae=sampled.finite_latents[row]))
        for row, request in enumerate(batch)
    ]


def _finite_rows(tensors: Sequence[Tensor], num_rows: int) -> list[bool]:
    """Whether every value of a row is finite in all tensors (B, ...); one transfer from the device."""
    if not tensors:
        return [True] * num_rows
    return torch.stack([each.isfinite().flatten(1).all(1) for each in tensors]).all(0).tolist()


def _not_finite(model: Backbone, *, by_vae: bool) -> str:
    dtype = str(model.dtype).removeprefix("torch.")
    if by_vae:
        return "the autoencoder's result is not finite, not even in float32: its weights or the latents are unusual."
    cure = "try bfloat16 or float32 (--dtype), or lower guidance" if dtype == "float16" else "try lower guidance"
    return f"the denoiser's result is not finite in {dtype}: {cure}, or check the weights of model and adapters."


def _finish_row(
    model: Backbone, request: RowRequest, plan: GenerationPlan, decoded: Mapping[int, Tensor], tokens_cut: int
) -> Generated:
    """The result of one row; `decoded` maps roles to finite tensors (3, height, width)."""
    image = _finish_image(decoded[0], request) if 0 in decoded else request.image
    assert image is not None, "a given image is in the request"
    conditions = {}
    for role, adapter in enumerate(plan.adapters, start=1):
        kind = model.adapter_kind(adapter)
        conditions[adapter] = (
            _finish_map(kind.from_model(decoded[role]), request, request.maps.get(adapter))
            if role in decoded
            else request.maps[adapter]
        )
    return Generated(image, conditions, tokens_cut)


def _finish_image(decoded: Tensor, request: RowRequest) -> Image.Image:
    image = image_tools.from_model(decoded, request.size)
    if request.mask is None or request.image is None:
        return image
    mixed = image_tools.blend(np.asarray(image), np.asarray(request.image), request.mask)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def _finish_map(values: np.ndarray, request: RowRequest, kept: np.ndarray | None) -> np.ndarray:
    values = image_tools.resize_map(values, request.size)
    return values if request.mask is None or kept is None else image_tools.blend(values, kept, request.mask)
