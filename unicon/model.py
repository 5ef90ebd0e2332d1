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
from typing import Unpack, overload

import numpy as np
from PIL import Image

from unicon import images as pictures
from unicon.backbone import Backbone
from unicon.ensemble import Estimate, combine, member_seeds
from unicon.generation import Generated, Plan, Request, Weight, generate
from unicon.options import MAX_SEED, SamplingOptions, SamplingSettings, check_number, check_whole
from unicon.outcomes import Failure, settled
from unicon.sampling import step_table
from unicon.views import merged, seen, views_of

MAX_ENSEMBLE = 100
MAX_SIDE_PX = 8192
"""Of an image that is asked for."""


class UniCon(Backbone):
    """A Stable Diffusion that estimates conditions, follows them, and generates pictures and conditions together.

    Lists have one entry a row; `seeds` is one for all rows or one a row. Options of several methods:

    options: a `SamplingOptions`; or its fields as keyword arguments, such as num_inference_steps (when None what the
    adapter recommends for estimates, else 20), guidance_scale (text guidance, 1 for none), condition_guidance_scale
    (pull toward the conditions, 0 for none), sampler, resolution_px (side of the square whose area the model works at,
    its own when None). Keyword arguments replace fields of `options`. weights: of the joint attention by adapter name,
    one for both sides or (to the image, to the condition). batch_size: the most rows it sees at once, all of one
    working size when None.

    Errors of every method: ValueError, with the rule, what came and the cure, for lists of different lengths, absent
    adapters, maps or masks of a wrong shape or range, and options out of range. `unicon.outcomes.NonFiniteError`, a
    ValueError that holds the results of the other rows, for rows whose result overflowed; no result with values that
    are not finite is ever returned.
    """

    @overload
    def estimate(
        self, images: Sequence[Image.Image], condition: str = ..., *, prompts: Sequence[str] | None = ...,
        seeds: int | Sequence[int] = ..., batch_size: int | None = ..., views: int | None = ..., ensemble: None = ...,
        options: SamplingOptions | None = ..., **settings: Unpack[SamplingSettings],
    ) -> list[np.ndarray]: ...  # fmt: skip

    @overload
    def estimate(
        self, images: Sequence[Image.Image], condition: str = ..., *, prompts: Sequence[str] | None = ...,
        seeds: int | Sequence[int] = ..., batch_size: int | None = ..., views: int | None = ..., ensemble: int,
        options: SamplingOptions | None = ..., **settings: Unpack[SamplingSettings],
    ) -> list[Estimate]: ...  # fmt: skip

    def estimate(
        self, images: Sequence[Image.Image], condition: str = "depth", *, prompts: Sequence[str] | None = None,
        seeds: int | Sequence[int] = 0, batch_size: int | None = None, views: int | None = None,
        ensemble: int | None = None, options: SamplingOptions | None = None, **settings: Unpack[SamplingSettings],
    ) -> list[np.ndarray] | list[Estimate]:  # fmt: skip
        """Estimate a condition of every image.

        images: any sizes and modes, together; EXIF orientation is applied. condition: name of an adapter.
        views: 1, 2 or 4 of every picture, whose estimates are averaged (`unicon.views`); None: as the adapter
        recommends. ensemble: how many estimates a row, from seeds that the row's seed gives. `batch_size` counts all.

        Returns one map an image at the image's own upright size, float32 in [0, 1] as `unicon.conditions` describes;
        with `ensemble` an Estimate: their median, spread and confidence.
        """
        self.adapter_kind(condition)
        sampling = self._sampling(options, settings).for_estimation(self.adapters[condition].estimation_steps)
        self.limits.check(sampling)
        uprights = [pictures.to_rgb(image) for image in images]
        requests = self._requests([image.size for image in uprights], prompts, None, seeds, sampling.resolution_px)
        requests = [replace(request, image=image) for request, image in zip(requests, uprights, strict=True)]
        outcomes = self._estimates(requests, condition, sampling, batch_size, views=views, ensemble=ensemble)
        return settled(outcomes)  # type: ignore[return-value]

    def _estimates(
        self, requests: Sequence[Request], condition: str, sampling: SamplingOptions, batch_size: int | None, *,
        views: int | None = None, ensemble: int | None = None,
    ) -> Sequence[np.ndarray | Estimate | Failure]:  # fmt: skip
        """The estimate of every request, which has an image, or why there is none."""
        kind, adapter = self.adapter_kind(condition), self.adapters[condition]
        sizes = [request.size for request in requests]
        if ensemble is not None:
            check_whole("ensemble", ensemble, min(ensemble, 1), MAX_ENSEMBLE)  # less than 1 `member_seeds` explains
            requests = [
                replace(request, seed=seed, size=request.working_size)
                for request in requests
                for seed in member_seeds(request.seed, ensemble)
            ]
        looks = views_of(kind, adapter.estimation_views if views is None else views)
        base_px = self.native_px if sampling.resolution_px is None else sampling.resolution_px
        requests = seen(
            requests, looks, lambda size, scale: self.working_size(size, resolution_px=round(base_px * scale))
        )
        table = step_table.estimation(_steps(sampling), clean_image=sampling.given_at == "clean")
        plan = Plan(adapters=(condition,), table=table, given=(0,), sampling=sampling, batch_size=batch_size)
        members = _grouped(generate(self, requests, plan), len(looks) * (ensemble or 1))
        return [
            row if isinstance(row, Failure) else _estimate(
                merged([each.conditions[condition] for each in row], looks), size, ensemble, affine=kind.is_affine
            )
            for row, size in zip(members, sizes, strict=True)
        ]  # fmt: skip

    def synthesize(
        self, conditions: Mapping[str, Sequence[np.ndarray]], prompts: Sequence[str], *,
        negative_prompts: Sequence[str] | None = None, seeds: int | Sequence[int] = 0,
        weights: Mapping[str, Weight] | None = None, strength: float = 0.0, batch_size: int | None = None,
        options: SamplingOptions | None = None, **settings: Unpack[SamplingSettings],
    ) -> list[Generated]:  # fmt: skip
        """Pictures that follow conditions.

        conditions: adapter name -> one map a row; all maps of a row have one size. strength: 0 takes the conditions for
        exact; above 0 they start noised that much (1: entirely) and are refined on the way.

        Returns pictures of the size of the row's maps, with the conditions: as given, or refined.
        """
        if not conditions:
            raise ValueError("Synthesis follows at least one condition; got none. Give {adapter: maps}.")
        check_number("strength", strength, 0, 1)
        sampling = self._for_generation(options, settings)
        maps = self._rows_of_maps(conditions, len(prompts))
        sizes = [_map_size(row) for row in maps]
        requests = self._requests(sizes, prompts, negative_prompts, seeds, sampling.resolution_px)
        requests = [replace(request, maps=row) for request, row in zip(requests, maps, strict=True)]
        steps, count = _steps(sampling), len(conditions)
        table = (
            step_table.coarse(steps, strength, count)
            if strength != 0
            else step_table.synthesis(steps, count, clean_conditions=sampling.given_at == "clean")
        )
        given = () if strength else tuple(range(1, count + 1))
        plan = Plan(adapters=tuple(conditions), table=table, given=given, weights=weights or {}, sampling=sampling,
                    batch_size=batch_size)  # fmt: skip
        return settled(generate(self, requests, plan))

    def refine(
        self, conditions: Mapping[str, Sequence[np.ndarray]], prompts: Sequence[str], *, strength: float = 0.7,
        negative_prompts: Sequence[str] | None = None, seeds: int | Sequence[int] = 0,
        weights: Mapping[str, Weight] | None = None, batch_size: int | None = None,
        options: SamplingOptions | None = None, **settings: Unpack[SamplingSettings],
    ) -> list[Generated]:  # fmt: skip
        """Pictures from conditions that are only roughly right, such as a sketch of a depth map, and the conditions
        cleaned: `synthesize` with a strength. Returns both in `Generated`.
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
        """Pictures together with their conditions, all from noise.

        condition: names of one or several adapters. size: (width, height) of the results; the model's own square when
        None. The model works at the nearest size of its own area (see `working_size`), and the result is resized.
        """
        names = self._names(condition)
        sampling = self._for_generation(options, settings)
        working_px = self.native_px if sampling.resolution_px is None else sampling.resolution_px
        size = (working_px, working_px) if size is None else size
        if max(size) > MAX_SIDE_PX:
            raise ValueError(f"size is at most {MAX_SIDE_PX} pixels a side; got {size}.")
        prompts = _texts(prompts, 0)
        requests = self._requests([size] * len(prompts), prompts, negative_prompts, seeds, sampling.resolution_px)
        plan = Plan(adapters=names, table=step_table.joint(_steps(sampling), len(names)), weights=weights or {},
                    sampling=sampling, batch_size=batch_size)  # fmt: skip
        return settled(generate(self, requests, plan))

    def inpaint(
        self, images: Sequence[Image.Image], masks: Sequence[np.ndarray], prompts: Sequence[str], *,
        condition: str | Sequence[str] = (), conditions: Mapping[str, Sequence[np.ndarray]] | None = None,
        negative_prompts: Sequence[str] | None = None, seeds: int | Sequence[int] = 0,
        weights: Mapping[str, Weight] | None = None, batch_size: int | None = None,
        options: SamplingOptions | None = None, **settings: Unpack[SamplingSettings],
    ) -> list[Generated]:  # fmt: skip
        """Paint new content into a part of every image; kept pixels are exactly the (upright) image's.

        masks: bool or float (H, W) in [0, 1] of the image's size, 1 generate, 0 keep, a mixture between. conditions:
        adapter name -> one map a row of the image's size, which guides and stays as it is. condition: names of other
        adapters whose conditions are painted together with the image: first estimated from the image, then kept
        outside the mask. With neither, Stable Diffusion paints alone.
        """
        names, given = self._names(condition), conditions or {}
        sampling = self._for_generation(options, settings)
        uprights = [pictures.to_rgb(image) for image in images]
        sizes = [image.size for image in uprights]
        requests = self._requests(sizes, prompts, negative_prompts, seeds, sampling.resolution_px)
        maps = self._rows_of_maps(given, len(prompts))
        requests = [
            replace(request, image=image, mask=mask, maps=_check_size(row, image.size))
            for request, image, mask, row in zip(requests, uprights, _check_masks(masks, sizes), maps, strict=True)
        ]
        table = step_table.completion(
            _steps(sampling), num_given=len(given), num_generated=len(names), clean_given=sampling.given_at == "clean"
        )
        plan = Plan(adapters=(*given, *names), table=table, given=tuple(range(1, len(given) + 1)),
                    weights=weights or {}, sampling=sampling, batch_size=batch_size)  # fmt: skip
        return settled(self._inpainted(self._with_estimates(requests, names, sampling, batch_size), plan))

    def _with_estimates(
        self, requests: Sequence[Request], names: Sequence[str], sampling: SamplingOptions, batch_size: int | None
    ) -> list[Request | Failure]:
        """Requests with estimates of these conditions of their images, made with the defaults of `estimate`."""
        found: list[Request | Failure] = list(requests)
        estimating = replace(
            sampling, guidance_scale=None, condition_guidance_scale=0.0,
            num_inference_steps=None if sampling.given_at == "clean" else sampling.num_inference_steps,
            sampler="lcm" if sampling.sampler == "lcm" else "ddim",
        )  # fmt: skip
        for name in names:
            options = estimating.for_estimation(self.adapters[name].estimation_steps)
            plain = [replace(each, prompt="", negative_prompt="", mask=None, maps={}) for each in requests]
            estimates = self._estimates(plain, name, options, batch_size)
            found = [
                each if isinstance(each, Failure)
                else estimate if isinstance(estimate, Failure)
                else replace(each, maps={**each.maps, name: estimate})
                for each, estimate in zip(found, estimates, strict=True)
            ]  # fmt: skip
        return found

    def _inpainted(self, requests: Sequence[Request | Failure], plan: Plan) -> list[Generated | Failure]:
        good = [request for request in requests if not isinstance(request, Failure)]
        results = iter(generate(self, good, plan))
        return [request if isinstance(request, Failure) else next(results) for request in requests]

    def _sampling(self, options: SamplingOptions | None, settings: SamplingSettings) -> SamplingOptions:
        """The options of a call, their defaults still open."""
        if options is not None:
            return replace(options, **settings) if settings else options
        if settings.get("sampler") == "lcm" or self.timestep_spacing is None:
            return SamplingOptions(**settings)
        return SamplingOptions(**{"timestep_spacing": self.timestep_spacing, **settings})  # type: ignore[arg-type]

    def _for_generation(self, options: SamplingOptions | None, settings: SamplingSettings) -> SamplingOptions:
        sampling = self._sampling(options, settings).for_generation()
        self.limits.check(sampling)
        return sampling

    def _requests(
        self, sizes: Sequence[tuple[int, int]], prompts: Sequence[str] | None, negative_prompts: Sequence[str] | None,
        seeds: int | Sequence[int], resolution_px: int | None,
    ) -> list[Request]:  # fmt: skip
        """One request a size, without pictures and maps."""
        texts = [_texts(prompts, len(sizes)), _texts(negative_prompts, len(sizes))]
        seeds = [seeds] * len(sizes) if isinstance(seeds, int | np.integer) else list(seeds)
        for seed in set(seeds):
            check_whole("seeds", seed, 0, MAX_SEED)
        if {len(texts[0]), len(texts[1]), len(seeds)} != {len(sizes)}:
            raise ValueError(
                f"Every list has one entry a row; got {len(sizes)} images, {len(texts[0])} prompts, {len(texts[1])} "
                f"negative prompts, {len(seeds)} seeds. Give lists of the same length."
            )
        return [
            Request(
                working_size=self.working_size(size, resolution_px=resolution_px), size=size, seed=int(seed),
                prompt=prompt, negative_prompt=negative_prompt,
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


def _steps(sampling: SamplingOptions) -> int:
    assert sampling.num_inference_steps is not None, "with_defaults has decided"
    return sampling.num_inference_steps


def _grouped(outcomes: Sequence[Generated | Failure], size: int) -> list[list[Generated] | Failure]:
    """Outcomes in groups of one size; a group that has a failure is one."""
    groups: list[list[Generated] | Failure] = []
    for start in range(0, len(outcomes), size):
        group = outcomes[start : start + size]
        failed = [each for each in group if isinstance(each, Failure)]
        groups.append(failed[0] if failed else [each for each in group if isinstance(each, Generated)])
    return groups


def _estimate(
    maps: list[np.ndarray], size: tuple[int, int], ensemble: int | None, *, affine: bool
) -> np.ndarray | Estimate:
    """The only map, or the estimate of an ensemble at (width, height)."""
    return maps[0] if ensemble is None else combine(maps, affine=affine).resized(size)


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
