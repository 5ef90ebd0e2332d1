"""`UniCon`: everything the model does, as calls on lists of rows.

    model = UniCon.from_pretrained("mini")
    depth = model.estimate([Image.open("photo.jpg")])[0]                          # float32 (H, W), 0 far, 1 near
    image = model.synthesize({"depth": [depth]}, ["a room in winter"])[0].image   # another picture of that depth
    both = model.generate_pairs(["a cat on a chair"])[0]                          # both.image, both.conditions["depth"]

A row's result belongs to the row: it depends on the row's pictures, maps, prompts and seed, not on its neighbours,
their order and sizes, or the batch size. In fp32 maps agree within 1e-4 absolute and pictures within one level of 255,
since batched matrix products round differently; 2e-6 and one level were measured on a tiny model of random weights on a
CPU, over all modes and samplers, with 2 to 20 steps (tests/unicon/test_properties.py).

Source: arXiv 2410.11439.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import overload

import numpy as np
from PIL import Image

from unicon import images as pictures
from unicon import schedule
from unicon.backbone import Backbone
from unicon.ensemble import Estimate, combine, member_seeds
from unicon.generation import Generated, Plan, Request, Weight, generate
from unicon.samplers import Sampler, SamplerName
from unicon.views import merged, seen, views_of

DEFAULT_GENERATION_STEPS = 20
"""Sampling steps of a generated picture; trailing timestep spacing."""
DEFAULT_GUIDANCE_SCALE = 7.5
"""Text guidance of a generated picture: what Stable Diffusion 1.x and UniCon are published with."""


class UniCon(Backbone):
    """A Stable Diffusion that estimates conditions, follows them, and generates pictures and conditions together.

    Lists have one entry a row; `seeds` is one for all rows or one a row. Options of several methods:

    num_inference_steps: steps of the sampler; when None what the adapter recommends for estimates, else
    DEFAULT_GENERATION_STEPS. guidance_scale: text guidance, 1 for none. condition_guidance_scale: pull towards the
    conditions, 0 for none; legal without text guidance. weights: of the joint attention by adapter name, one for
    both sides or (to the image, to the condition). resolution_px: side of the square whose area the model works at, its
    own when None. batch_size: the most rows it sees at once, all of one working size when None. sampler, eta:
    `unicon.samplers.Sampler`.

    Errors of every method: ValueError, with the rule, what came and the cure, for lists of different lengths, absent
    adapters, maps or masks of a wrong shape or range, and options out of range.
    """

    @overload
    def estimate(
        self, images: Sequence[Image.Image], condition: str = ..., *, prompts: Sequence[str] | None = ...,
        seeds: int | Sequence[int] = ..., num_inference_steps: int | None = ..., guidance_scale: float = ...,
        resolution_px: int | None = ..., batch_size: int | None = ..., views: int | None = ..., ensemble: None = ...,
        sampler: SamplerName = ..., eta: float = ...,
    ) -> list[np.ndarray]: ...  # fmt: skip

    @overload
    def estimate(
        self, images: Sequence[Image.Image], condition: str = ..., *, prompts: Sequence[str] | None = ...,
        seeds: int | Sequence[int] = ..., num_inference_steps: int | None = ..., guidance_scale: float = ...,
        resolution_px: int | None = ..., batch_size: int | None = ..., views: int | None = ..., ensemble: int,
        sampler: SamplerName = ..., eta: float = ...,
    ) -> list[Estimate]: ...  # fmt: skip

    def estimate(
        self, images: Sequence[Image.Image], condition: str = "depth", *, prompts: Sequence[str] | None = None,
        seeds: int | Sequence[int] = 0, num_inference_steps: int | None = None, guidance_scale: float = 1.0,
        resolution_px: int | None = None, batch_size: int | None = None, views: int | None = None,
        ensemble: int | None = None, sampler: SamplerName = "ddim", eta: float = 0.0,
    ) -> list[np.ndarray] | list[Estimate]:  # fmt: skip
        """Estimate a condition of every image.

        images: any sizes and modes, together; EXIF orientation is applied. condition: name of an adapter.
        views: 1, 2 or 4 of every picture, whose estimates are averaged (`unicon.views`); None: as the adapter
        recommends. ensemble: how many estimates a row, from seeds that the row's seed gives. `batch_size` counts all.

        Returns one map an image at the image's own upright size, float32 in [0, 1] as `unicon.conditions` describes;
        with `ensemble` an Estimate: their median, spread and confidence.
        """
        kind = self.adapter_kind(condition)
        uprights = [pictures.to_rgb(image) for image in images]
        sizes = [image.size for image in uprights]
        requests = self._requests(sizes, prompts, None, seeds, resolution_px)
        requests = [replace(request, image=image) for request, image in zip(requests, uprights, strict=True)]
        if ensemble is not None:
            requests = [
                replace(request, seed=seed, size=request.working_size)
                for request in requests
                for seed in member_seeds(request.seed, ensemble)
            ]
        adapter = self.adapters[condition]
        looks = views_of(kind, adapter.estimation_views if views is None else views)
        base_px = self.native_px if resolution_px is None else resolution_px
        requests = seen(
            requests, looks, lambda size, scale: self.working_size(size, resolution_px=round(base_px * scale))
        )
        steps = adapter.estimation_steps if num_inference_steps is None else num_inference_steps
        table = schedule.estimation(steps, clean_image=True)
        plan = Plan(adapters=(condition,), table=table, guidance_scale=guidance_scale,
                    sampler=Sampler(sampler, eta), batch_size=batch_size)  # fmt: skip
        maps = merged([generated.conditions[condition] for generated in generate(self, requests, plan)], looks)
        if ensemble is None:
            return maps
        members = (maps[row * ensemble : (row + 1) * ensemble] for row in range(len(images)))
        estimates = (combine(row, affine=kind.is_affine) for row in members)
        return [estimate.resized(size) for estimate, size in zip(estimates, sizes, strict=True)]

    def synthesize(
        self, conditions: Mapping[str, Sequence[np.ndarray]], prompts: Sequence[str], *,
        negative_prompts: Sequence[str] | None = None, seeds: int | Sequence[int] = 0,
        weights: Mapping[str, Weight] | None = None, strength: float = 0.0, num_inference_steps: int | None = None,
        guidance_scale: float = DEFAULT_GUIDANCE_SCALE, condition_guidance_scale: float = 0.0,
        resolution_px: int | None = None, batch_size: int | None = None, sampler: SamplerName = "ddim",
        eta: float = 0.0,
    ) -> list[Generated]:  # fmt: skip
        """Pictures that follow conditions.

        conditions: adapter name -> one map a row; all maps of a row have one size. strength: 0 takes the conditions for
        exact; above 0 they start noised that much (1: entirely) and are refined on the way.

        Returns pictures of the size of the row's maps, with the conditions: as given, or refined.
        """
        if not conditions:
            raise ValueError("Synthesis follows at least one condition; got none. Give {adapter: maps}.")
        maps = self._rows_of_maps(conditions, len(prompts))
        requests = self._requests([_map_size(row) for row in maps], prompts, negative_prompts, seeds, resolution_px)
        requests = [replace(request, maps=row) for request, row in zip(requests, maps, strict=True)]
        steps = DEFAULT_GENERATION_STEPS if num_inference_steps is None else num_inference_steps
        table = (
            schedule.coarse(steps, strength, len(conditions))
            if strength != 0
            else schedule.synthesis(steps, len(conditions), clean_conditions=True)
        )
        plan = Plan(adapters=tuple(conditions), table=table, weights=weights or {}, guidance_scale=guidance_scale,
                    condition_guidance_scale=condition_guidance_scale, sampler=Sampler(sampler, eta),
                    batch_size=batch_size)  # fmt: skip
        return generate(self, requests, plan)

    def refine(
        self, conditions: Mapping[str, Sequence[np.ndarray]], prompts: Sequence[str], *, strength: float = 0.7,
        negative_prompts: Sequence[str] | None = None, seeds: int | Sequence[int] = 0,
        weights: Mapping[str, Weight] | None = None, num_inference_steps: int | None = None,
        guidance_scale: float = DEFAULT_GUIDANCE_SCALE, condition_guidance_scale: float = 0.0,
        resolution_px: int | None = None, batch_size: int | None = None, sampler: SamplerName = "ddim",
        eta: float = 0.0,
    ) -> list[Generated]:  # fmt: skip
        """Pictures from conditions that are only roughly right, such as a sketch of a depth map, and the conditions
        cleaned: `synthesize` with a strength. Returns both in `Generated`.
        """
        return self.synthesize(
            conditions, prompts, negative_prompts=negative_prompts, seeds=seeds, weights=weights, strength=strength,
            num_inference_steps=num_inference_steps, guidance_scale=guidance_scale,
            condition_guidance_scale=condition_guidance_scale, resolution_px=resolution_px, batch_size=batch_size,
            sampler=sampler, eta=eta,
        )  # fmt: skip

    def generate_pairs(
        self, prompts: Sequence[str], condition: str | Sequence[str] = "depth", *, size: tuple[int, int] | None = None,
        negative_prompts: Sequence[str] | None = None, seeds: int | Sequence[int] = 0,
        weights: Mapping[str, Weight] | None = None, num_inference_steps: int | None = None,
        guidance_scale: float = DEFAULT_GUIDANCE_SCALE, condition_guidance_scale: float = 0.0,
        resolution_px: int | None = None, batch_size: int | None = None, sampler: SamplerName = "ddim",
        eta: float = 0.0,
    ) -> list[Generated]:  # fmt: skip
        """Pictures together with their conditions, all from noise.

        condition: names of one or several adapters. size: (width, height) of the results; the model's own square when
        None. The model works at the nearest size of its own area (see `working_size`), and the result is resized.
        """
        names = self._names(condition)
        working_px = self.native_px if resolution_px is None else resolution_px
        sizes = [(working_px, working_px) if size is None else size] * len(prompts)
        requests = self._requests(sizes, prompts, negative_prompts, seeds, resolution_px)
        steps = DEFAULT_GENERATION_STEPS if num_inference_steps is None else num_inference_steps
        plan = Plan(adapters=names, table=schedule.joint(steps, len(names)), weights=weights or {},
                    guidance_scale=guidance_scale, condition_guidance_scale=condition_guidance_scale,
                    sampler=Sampler(sampler, eta), batch_size=batch_size)  # fmt: skip
        return generate(self, requests, plan)

    def inpaint(
        self, images: Sequence[Image.Image], masks: Sequence[np.ndarray], prompts: Sequence[str], *,
        condition: str | Sequence[str] = (), conditions: Mapping[str, Sequence[np.ndarray]] | None = None,
        negative_prompts: Sequence[str] | None = None, seeds: int | Sequence[int] = 0,
        weights: Mapping[str, Weight] | None = None, num_inference_steps: int | None = None,
        guidance_scale: float = DEFAULT_GUIDANCE_SCALE, condition_guidance_scale: float = 0.0,
        resolution_px: int | None = None, batch_size: int | None = None, sampler: SamplerName = "ddim",
        eta: float = 0.0,
    ) -> list[Generated]:  # fmt: skip
        """Paint new content into a part of every image; kept pixels are exactly the (upright) image's.

        masks: bool or float (H, W) in [0, 1] of the image's size, 1 generate, 0 keep, a mixture between. conditions:
        adapter name -> one map a row of the image's size, which guides and stays as it is. condition: names of other
        adapters whose conditions are painted together with the image: first estimated from the image, then kept
        outside the mask. With neither, Stable Diffusion paints alone.
        """
        names, given = self._names(condition), conditions or {}
        uprights = [pictures.to_rgb(image) for image in images]
        sizes = [image.size for image in uprights]
        requests = self._requests(sizes, prompts, negative_prompts, seeds, resolution_px)
        maps = self._rows_of_maps(given, len(prompts))
        for name in names:
            estimates = self.estimate(uprights, name, seeds=seeds, resolution_px=resolution_px, batch_size=batch_size)
            maps = [row | {name: estimate} for row, estimate in zip(maps, estimates, strict=True)]
        requests = [
            replace(request, image=image, mask=mask, maps=_check_size(row, image.size))
            for request, image, mask, row in zip(requests, uprights, _check_masks(masks, sizes), maps, strict=True)
        ]
        steps = DEFAULT_GENERATION_STEPS if num_inference_steps is None else num_inference_steps
        table = schedule.completion(steps, num_given=len(given), num_generated=len(names))
        plan = Plan(adapters=(*given, *names), table=table, weights=weights or {}, guidance_scale=guidance_scale,
                    condition_guidance_scale=condition_guidance_scale, sampler=Sampler(sampler, eta),
                    batch_size=batch_size)  # fmt: skip
        return generate(self, requests, plan)

    def _requests(
        self, sizes: Sequence[tuple[int, int]], prompts: Sequence[str] | None, negative_prompts: Sequence[str] | None,
        seeds: int | Sequence[int], resolution_px: int | None,
    ) -> list[Request]:  # fmt: skip
        """One request a size, without pictures and maps."""
        texts = [_texts(prompts, len(sizes)), _texts(negative_prompts, len(sizes))]
        seeds = [int(seeds)] * len(sizes) if isinstance(seeds, int | np.integer) else [int(seed) for seed in seeds]
        if {len(texts[0]), len(texts[1]), len(seeds)} != {len(sizes)}:
            raise ValueError(
                f"Every list has one entry a row; got {len(sizes)} images, {len(texts[0])} prompts, {len(texts[1])} "
                f"negative prompts, {len(seeds)} seeds. Give lists of the same length."
            )
        return [
            Request(
                working_size=self.working_size(size, resolution_px=resolution_px), size=size, seed=seed, prompt=prompt,
                negative_prompt=negative_prompt,
            )
            for size, prompt, negative_prompt, seed in zip(sizes, *texts, seeds, strict=True)
        ]  # fmt: skip

    def _names(self, condition: str | Sequence[str]) -> tuple[str, ...]:
        names = (condition,) if isinstance(condition, str) else tuple(condition)
        for name in names:
            self.adapter_kind(name)
        return names

    def _rows_of_maps(self, conditions: Mapping[str, Sequence[np.ndarray]], count: int) -> list[dict[str, np.ndarray]]:
        """Checked maps by adapter, one dict a row."""
        checked = {name: [self.adapter_kind(name).check(row) for row in maps] for name, maps in conditions.items()}
        for name, maps in checked.items():
            if len(maps) != count:
                raise ValueError(
                    f"Every condition has one map a row; {name!r} has {len(maps)} maps for {count} prompts. "
                    "Give lists of the same length."
                )
        return [{name: maps[row] for name, maps in checked.items()} for row in range(count)]


def _texts(texts: Sequence[str] | None, count: int) -> list[str]:
    if isinstance(texts, str):
        raise ValueError(f"Prompts are a list, one a row; got the text {texts!r}. Give [{texts!r}].")
    return [""] * count if texts is None else list(texts)


def _map_size(maps: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """(width, height) that all maps of a row have."""
    height, width = next(iter(maps.values())).shape[:2]
    _check_size(maps, (width, height))
    return width, height


def _check_size(maps: dict[str, np.ndarray], size: tuple[int, int]) -> dict[str, np.ndarray]:
    shapes = {name: values.shape for name, values in maps.items()}
    if any(shape[:2] != size[::-1] for shape in shapes.values()):
        raise ValueError(
            f"The maps of a row have one size, and the image's if there is one; expected width x height "
            f"{size[0]} x {size[1]}, got arrays {shapes}. Resize them (unicon.images.resize_map)."
        )
    return maps


def _check_masks(masks: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """float32 masks."""
    checked = [np.asarray(mask, dtype=np.float32) for mask in masks]
    shapes = [mask.shape for mask in checked]
    if shapes != [size[::-1] for size in sizes] or not all(((mask >= 0) & (mask <= 1)).all() for mask in checked):
        raise ValueError(
            f"Every image has a mask (H, W) of its own size with values in [0, 1]; got masks {shapes} for images of "
            f"(width, height) {list(sizes)}. Resize the masks, or divide 8-bit ones by 255."
        )
    return checked
