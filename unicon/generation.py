"""From requests to results: the one path for all tasks, whatever is given and whatever is generated.

Shapes: B rows of a micro-batch, R roles (the image, then the conditions of a plan), (channels, h, w) latents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unicon import images as image_tools
from unicon.backbone import Backbone
from unicon.batches import EncodedImages, given_pixels, sample_batch, triggers_of
from unicon.outcomes import Failure
from unicon.requests import GenerationPlan, RowRequest


@dataclass(frozen=True)
class Generated:
    """An image with its conditions."""

    image: Image.Image
    """8-bit RGB."""
    conditions: dict[str, np.ndarray]
    """Adapter name -> map. Given maps are returned as they were given, others have the size of the image."""
    prompt_tokens_cut: int = 0
    """Tokens by which the prompt, with the longest trigger text before it, exceeded the text encoder's limit."""


def generate(
    model: Backbone,
    requests: Sequence[RowRequest | Failure],
    plan: GenerationPlan,
    encoded: EncodedImages | None = None,
) -> list[Generated | Failure]:
    """Run all requests; the outcomes are in their order, and failures among the requests are returned.

    How requests share micro-batches only changes rounding. A micro-batch is prepared and finished on the CPU in the
    caller's thread; what is between uses the device and goes through `Backbone.run_on_device`.

    Calls that share images share `encoded`, to which the images of the requests are added.
    """
    encoded = {} if encoded is None else encoded
    good = [request for request in requests if not isinstance(request, Failure)]
    results: dict[int, Generated | Failure] = {}
    for rows in micro_batches(good, plan.batch_size):
        batch = [good[row] for row in rows]
        padded = model.compilation.start_batch(batch, plan.batch_size)
        pixels = given_pixels(model, padded, plan, encoded)
        sampled = model.run_on_device(partial(_sample_and_decode, model, padded, plan, pixels, encoded))
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
    model: Backbone, batch: Sequence[RowRequest], plan: GenerationPlan, pixels: Sequence[Tensor | None],
    encoded: EncodedImages,
) -> Sampled:  # fmt: skip
    """The part of a micro-batch that uses the device, the tokenizer and the text encoder."""
    sampled = sample_batch(model, batch, plan, pixels, encoded)
    decode_map = model.decode_maps if plan.sampling.map_decoder == "small" else model.decode_latents
    decoded = {role: (decode_map if role else model.decode_latents)(latents) for role, latents in sampled.items()}
    triggers = triggers_of(model, plan)
    on_cpu = {role: tensor.to("cpu", non_blocking=True) for role, tensor in decoded.items()}
    return Sampled(  # the transfer of which rows are finite waits for the copies
        on_cpu,
        _finite_rows(list(decoded.values()), len(batch)),
        _finite_rows(list(sampled.values()), len(batch)),
        [max(model.tokens_cut([trigger + request.prompt for trigger in triggers])) for request in batch],
    )


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
