"""`UniCon`: all tasks of the model as methods on lists of rows.

    model = UniCon.from_pretrained("mini")
    depth = model.estimate([Image.open("photo.jpg")])[0]                          # float32 (H, W), 0 far, 1 near
    image = model.synthesize({"depth": [depth]}, ["a room in winter"])[0].image   # another image with that depth
    both = model.generate_pairs(["a cat on a chair"])[0]                          # both.image, both.conditions["depth"]

The result of a row depends on the row's images, maps, prompts and seed. It does not depend on its neighbors, their
order and sizes, or the batch size: in float32, maps agree within 1e-4 absolute and images within one level of 255,
since batched matrix products round differently. 2e-6 and one level were measured on a tiny model of random weights on a
CPU, over all modes and samplers, with 2 to 20 steps (tests/unicon/test_properties.py).

Source: arXiv 2410.11439.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
from PIL import Image

from unicon import images as image_tools
from unicon import rows
from unicon.estimation import Estimator
from unicon.generation import Generated, generate
from unicon.options import SamplingOptions, SamplingSettings, check_number
from unicon.outcomes import Failure, settled
from unicon.requests import GenerationPlan, RowRequest, Weight
from unicon.sampling import step_table

MAX_SIDE_PX = 8192
"""Longest side of a generated image, in pixels."""


class UniCon(Estimator):
    """A Stable Diffusion that estimates conditions, follows them, and generates images together with conditions.

    Lists have one entry per row; `seeds` is one seed for all rows or one per row. Arguments shared by the methods:

    * options: A `SamplingOptions`. Its fields can also be given as keyword arguments, which replace those of
      `options`: num_inference_steps (for None, what the adapter recommends for estimates, else 20), guidance_scale
      (text guidance, 1 for none), condition_guidance_scale (pull toward the conditions, 0 for none), sampler,
      resolution_px (side of the square whose area the model works at, its own for None), and others.
    * weights: Weights of the joint attention by adapter name: one for both sides, or (to the image, to the condition).
    * batch_size: The largest number of rows in one batch. For None, all rows of one working size.

    All methods raise ValueError for lists of different lengths, absent adapters, maps or masks of a wrong shape or
    range, and options out of range. They raise `unicon.outcomes.NonFiniteError`, a ValueError that holds the results of
    the other rows, if the result of a row overflowed: a result with values that are not finite is never returned.
    """

    def synthesize(
        self, conditions: Mapping[str, Sequence[np.ndarray]], prompts: Sequence[str], *,
        negative_prompts: Sequence[str] | None = None, seeds: int | Sequence[int] = 0,
        weights: Mapping[str, Weight] | None = None, strength: float = 0.0, batch_size: int | None = None,
        options: SamplingOptions | None = None, **settings: Unpack[SamplingSettings],
    ) -> list[Generated]:  # fmt: skip
        """Generate images that follow conditions.

        `conditions` maps adapter names to one map per row; all maps of a row have one size. A `strength` of 0 takes the
        conditions as exact. Above 0 they start with that much noise (1: nothing but noise) and are refined together
        with the image.

        Returns:
            Images of the size of the row's maps, with the conditions as given or refined.
        """
        if not conditions:
            raise ValueError("Synthesis follows at least one condition; got none. Give {adapter: maps}.")
        check_number("strength", strength, 0, 1)
        sampling = self._for_generation(options, settings)
        maps = self._checked_maps(conditions, len(prompts))
        sizes = [rows.map_size(row) for row in maps]
        requests = self._requests(sizes, prompts, negative_prompts, seeds, sampling.resolution_px)
        requests = [replace(request, maps=row) for request, row in zip(requests, maps, strict=True)]
        steps, count = sampling.steps, len(conditions)
        table = (
            step_table.coarse(steps, strength, count)
            if strength != 0
            else step_table.synthesis(steps, count, clean_conditions=sampling.given_at == "clean")
        )
        given = () if strength else tuple(range(1, count + 1))
        plan = GenerationPlan(
            adapters=tuple(conditions), table=table, given=given, weights=weights or {}, sampling=sampling,
            batch_size=batch_size,
        )  # fmt: skip
        return settled(generate(self, requests, plan))

    def refine(
        self, conditions: Mapping[str, Sequence[np.ndarray]], prompts: Sequence[str], *, strength: float = 0.7,
        negative_prompts: Sequence[str] | None = None, seeds: int | Sequence[int] = 0,
        weights: Mapping[str, Weight] | None = None, batch_size: int | None = None,
        options: SamplingOptions | None = None, **settings: Unpack[SamplingSettings],
    ) -> list[Generated]:  # fmt: skip
        """Generate images from rough conditions, such as a sketch of a depth map, and clean the conditions.

        The same as `synthesize` with a strength. The results contain both images and conditions.
        """
        return self.synthesize(
            conditions, prompts, negative_prompts=negative_prompts, seeds=seeds, weights=weights, strength=strength,
            batch_size=batch_size, options=options, **settings,
        )  # fmt: skip

    def generate_pairs(
        self, prompts: Sequence[str], condition: str | Sequence[str] = "depth", *, size: tuple[int, int] | None = None,
        negative_prompts: Sequence[str] | None = None, seeds: int | Sequence[int] = 0,
        weights: Mapping[str, Weight] | None = None, batch_size: int | None = None,
        options: SamplingOptions | None = None, **settings: Unpack[SamplingSettings],
    ) -> list[Generated]:  # fmt: skip
        """Generate images together with their conditions, all from noise.

        `condition` names one or several adapters. `size` is (width, height) of the results; for None, the model's own
        square. The model works at the nearest size of its own area (see `working_size`), and the results are resized.
        """
        names = self._names(condition)
        sampling = self._for_generation(options, settings)
        working_px = self.native_px if sampling.resolution_px is None else sampling.resolution_px
        size = (working_px, working_px) if size is None else size
        if max(size) > MAX_SIDE_PX:
            raise ValueError(f"size is at most {MAX_SIDE_PX} pixels a side; got {size}.")
        prompts = rows.texts_of(prompts, 0)
        requests = self._requests([size] * len(prompts), prompts, negative_prompts, seeds, sampling.resolution_px)
        plan = GenerationPlan(
            adapters=names, table=step_table.joint(sampling.steps, len(names)), weights=weights or {},
            sampling=sampling, batch_size=batch_size,
        )  # fmt: skip
        return settled(generate(self, requests, plan))

    def inpaint(
        self, images: Sequence[Image.Image], masks: Sequence[np.ndarray], prompts: Sequence[str], *,
        condition: str | Sequence[str] = (), conditions: Mapping[str, Sequence[np.ndarray]] | None = None,
        negative_prompts: Sequence[str] | None = None, seeds: int | Sequence[int] = 0,
        weights: Mapping[str, Weight] | None = None, batch_size: int | None = None,
        options: SamplingOptions | None = None, **settings: Unpack[SamplingSettings],
    ) -> list[Generated]:  # fmt: skip
        """Paint new content into a part of every image. Kept pixels are exactly those of the upright image.

        `masks` are bool or float (H, W) in [0, 1] of their image's size: 1 generates, 0 keeps, and values between mix
        both. `conditions` maps adapter names to one map per row, of the image's size, that guides and does not change.
        `condition` names adapters whose conditions are painted together with the image: they are first estimated from
        the image, then kept outside the mask. With neither, Stable Diffusion paints alone.
        """
        names, given = self._names(condition), conditions or {}
        sampling = self._for_generation(options, settings)
        uprights = [image_tools.to_rgb(image) for image in images]
        sizes = [image.size for image in uprights]
        requests = self._requests(sizes, prompts, negative_prompts, seeds, sampling.resolution_px)
        maps = self._checked_maps(given, len(prompts))
        for row, size in zip(maps, sizes, strict=True):
            rows.check_map_size(row, size)
        requests = [
            replace(request, image=image, mask=mask, maps=row)
            for request, image, mask, row in zip(requests, uprights, rows.check_masks(masks, sizes), maps, strict=True)
        ]
        table = step_table.completion(
            sampling.steps, num_given=len(given), num_generated=len(names), clean_given=sampling.given_at == "clean"
        )
        plan = GenerationPlan(
            adapters=(*given, *names), table=table, given=tuple(range(1, len(given) + 1)), weights=weights or {},
            sampling=sampling, batch_size=batch_size,
        )  # fmt: skip
        return settled(generate(self, self._with_estimates(requests, names, sampling, batch_size), plan))

    def _with_estimates(
        self, requests: Sequence[RowRequest], names: Sequence[str], sampling: SamplingOptions, batch_size: int | None
    ) -> list[RowRequest | Failure]:
        """The requests with estimates of these conditions of their images, made with the defaults of `estimate`."""
        plain = [replace(each, prompt="", negative_prompt="", mask=None, maps={}) for each in requests]
        samplings = {name: sampling.for_first_estimation(self.adapters[name].estimation_steps) for name in names}
        if not samplings:
            return list(requests)
        return [
            estimates if isinstance(estimates, Failure) else replace(each, maps={**each.maps, **estimates})
            for each, estimates in zip(requests, self._estimates(plain, samplings, batch_size), strict=True)
        ]

    def _for_generation(self, options: SamplingOptions | None, settings: SamplingSettings) -> SamplingOptions:
        sampling = self._sampling(options, settings).for_generation()
        self.limits.check(sampling)
        return sampling

    def _checked_maps(self, conditions: Mapping[str, Sequence[np.ndarray]], count: int) -> list[dict[str, np.ndarray]]:
        """Checked maps by adapter, one dict per row."""
        checked = {name: [self.adapter_kind(name).check(row) for row in maps] for name, maps in conditions.items()}
        return rows.maps_by_row(checked, count)
