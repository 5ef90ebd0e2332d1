"""Estimation: the part of `unicon.model.UniCon` that estimates conditions of images, one or several in one pass.

Several conditions of an image are sampled in one batch, each as in a call of its own: conditions do not attend to each
other, and each draws its noise from a generator of its own. The image is encoded once. With `one_way` it also passes
the UNet only once; otherwise every condition has its own copy of the image, which it changes.

Tested in tests/unicon/test_estimation.py, tests/unicon/test_ensemble.py and tests/unicon/test_views.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, Unpack, overload

import numpy as np
from PIL import Image

from unicon import images as image_tools
from unicon import rows
from unicon.backbone import Backbone
from unicon.batches import EncodedImages
from unicon.ensemble import Estimate, combine, member_seeds
from unicon.generation import generate
from unicon.options import SamplingOptions, SamplingSettings, check_whole
from unicon.outcomes import Failure, combined, grouped, settled
from unicon.requests import GenerationPlan, RowRequest
from unicon.sampling import step_table
from unicon.views import View, average_views, expand_views, views_of

T = TypeVar("T")
MAX_ENSEMBLE_SIZE = 100
Several = list[str] | tuple[str, ...]
"""Names of several adapters."""


class Estimator(Backbone):
    """A model that estimates conditions of images."""

    @overload
    def estimate(
        self, images: Sequence[Image.Image], condition: str = "depth", *, prompts: Sequence[str] | None = None,
        seeds: int | Sequence[int] = 0, batch_size: int | None = None, num_views: int | None = None,
        options: SamplingOptions | None = None, **settings: Unpack[SamplingSettings],
    ) -> list[np.ndarray]: ...  # fmt: skip

    @overload
    def estimate(
        self, images: Sequence[Image.Image], condition: Several, *, prompts: Sequence[str] | None = None,
        seeds: int | Sequence[int] = 0, batch_size: int | None = None, num_views: int | None = None,
        options: SamplingOptions | None = None, **settings: Unpack[SamplingSettings],
    ) -> list[dict[str, np.ndarray]]: ...  # fmt: skip

    def estimate(
        self, images: Sequence[Image.Image], condition: str | Several = "depth", *,
        prompts: Sequence[str] | None = None, seeds: int | Sequence[int] = 0, batch_size: int | None = None,
        num_views: int | None = None, options: SamplingOptions | None = None, **settings: Unpack[SamplingSettings],
    ) -> list[np.ndarray] | list[dict[str, np.ndarray]]:  # fmt: skip
        """Estimate one or several conditions of every image.

        `images` may have any sizes and modes; their EXIF orientation is applied. `condition` is the name of an adapter,
        or several names, which are estimated in one pass; each map equals that of a call of its own. `num_views` is the
        number of views of every image (1, 2 or 4) whose estimates are averaged (`unicon.views`); for None, what each
        adapter recommends. `batch_size` counts the views of all images, however many conditions they have.

        Returns:
            One map per image at the image's own upright size, float32 in [0, 1], see `unicon.condition_kinds`. For
            several names, a dict of such maps by name.
        """
        requests, samplings = self._for_estimates(images, condition, prompts, seeds, options, settings)
        estimates = self._estimates(requests, samplings, batch_size, num_views)
        return settled(_single(estimates, condition)) if isinstance(condition, str) else settled(estimates)

    @overload
    def estimate_ensemble(
        self, images: Sequence[Image.Image], condition: str = "depth", *, ensemble_size: int = 5,
        prompts: Sequence[str] | None = None, seeds: int | Sequence[int] = 0, batch_size: int | None = None,
        num_views: int | None = None, options: SamplingOptions | None = None, **settings: Unpack[SamplingSettings],
    ) -> list[Estimate]: ...  # fmt: skip

    @overload
    def estimate_ensemble(
        self, images: Sequence[Image.Image], condition: Several, *, ensemble_size: int = 5,
        prompts: Sequence[str] | None = None, seeds: int | Sequence[int] = 0, batch_size: int | None = None,
        num_views: int | None = None, options: SamplingOptions | None = None, **settings: Unpack[SamplingSettings],
    ) -> list[dict[str, Estimate]]: ...  # fmt: skip

    def estimate_ensemble(
        self, images: Sequence[Image.Image], condition: str | Several = "depth", *, ensemble_size: int = 5,
        prompts: Sequence[str] | None = None, seeds: int | Sequence[int] = 0, batch_size: int | None = None,
        num_views: int | None = None, options: SamplingOptions | None = None, **settings: Unpack[SamplingSettings],
    ) -> list[Estimate] | list[dict[str, Estimate]]:  # fmt: skip
        """Estimate conditions of every image several times: the median, its spread and its confidence.

        The arguments are those of `estimate`, plus `ensemble_size`, the number of estimates per row. The seeds of the
        estimates are derived from the row's seed.

        Returns:
            One estimate per image; for several names, a dict of estimates by name.
        """
        requests, samplings = self._for_estimates(images, condition, prompts, seeds, options, settings)
        check_whole("ensemble_size", ensemble_size, min(ensemble_size, 1), MAX_ENSEMBLE_SIZE)  # below 1: `member_seeds`
        members = [
            replace(request, seed=seed, size=request.working_size)
            for request in requests
            for seed in member_seeds(request.seed, ensemble_size)
        ]
        groups = grouped(self._estimates(members, samplings, batch_size, num_views), ensemble_size)
        estimates = [
            maps if isinstance(maps, Failure) else {name: self._combined(name, maps, request) for name in samplings}
            for maps, request in zip(groups, requests, strict=True)
        ]
        return settled(_single(estimates, condition)) if isinstance(condition, str) else settled(estimates)

    def _combined(self, condition: str, members: Sequence[Mapping[str, np.ndarray]], request: RowRequest) -> Estimate:
        affine = self.adapter_kind(condition).is_affine
        return combine([maps[condition] for maps in members], affine=affine).resized(request.size)

    def _estimates(
        self, requests: Sequence[RowRequest], samplings: Mapping[str, SamplingOptions], batch_size: int | None,
        num_views: int | None = None,
    ) -> list[dict[str, np.ndarray] | Failure]:  # fmt: skip
        """The estimates by name for every request, each of which has an image, or why there are none.

        `samplings` are the sampling options by name. Conditions with the same options and views share a pass.
        """
        passes: dict[tuple[SamplingOptions, tuple[View, ...]], list[str]] = {}
        for name, sampling in samplings.items():
            count = self.adapters[name].estimation_views if num_views is None else num_views
            passes.setdefault((sampling, views_of(self.adapter_kind(name), count)), []).append(name)
        encoded: EncodedImages = {}
        estimates = [
            self._one_pass(requests, names, sampling, views, batch_size, encoded)
            for (sampling, views), names in passes.items()
        ]
        return [combined(row, samplings) for row in zip(*estimates, strict=True)]

    def _one_pass(
        self, requests: Sequence[RowRequest], names: Sequence[str], sampling: SamplingOptions, views: Sequence[View],
        batch_size: int | None, encoded: EncodedImages,
    ) -> list[dict[str, np.ndarray] | Failure]:  # fmt: skip
        base_px = self.native_px if sampling.resolution_px is None else sampling.resolution_px
        viewed = expand_views(
            requests, views, lambda size, scale: self.working_size(size, resolution_px=round(base_px * scale))
        )
        table = step_table.estimation(sampling.steps, len(names), clean_image=sampling.given_at == "clean")
        plan = GenerationPlan(
            adapters=tuple(names), table=table, given=(0,), separate=len(names) > 1, sampling=sampling,
            batch_size=batch_size,
        )  # fmt: skip
        return [
            row if isinstance(row, Failure)
            else {name: average_views([each.conditions[name] for each in row], views)[0] for name in names}
            for row in grouped(generate(self, viewed, plan, encoded), len(views))
        ]  # fmt: skip

    def _for_estimates(
        self, images: Sequence[Image.Image], condition: str | Several, prompts: Sequence[str] | None,
        seeds: int | Sequence[int], options: SamplingOptions | None, settings: Mapping[str, Any],
    ) -> tuple[list[RowRequest], dict[str, SamplingOptions]]:  # fmt: skip
        """(requests, sampling options by name) of a call."""
        names = self._names(condition)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"An estimate has at least one condition, and each once; got {list(names)}.")
        given = self._sampling(options, settings)
        samplings = {name: given.for_estimation(self.adapters[name].estimation_steps) for name in names}
        for sampling in samplings.values():
            self.limits.check(sampling)
        uprights = [image_tools.to_rgb(image) for image in images]
        requests = self._requests([image.size for image in uprights], prompts, None, seeds, given.resolution_px)
        return [replace(each, image=image) for each, image in zip(requests, uprights, strict=True)], samplings

    def _sampling(self, options: SamplingOptions | None, settings: Mapping[str, Any]) -> SamplingOptions:
        """The options of a call. Values that depend on the task may still be None."""
        if options is not None:
            return replace(options, **settings) if settings else options
        if settings.get("sampler") == "lcm" or self.timestep_spacing is None:
            return SamplingOptions(**settings)
        return SamplingOptions(**{"timestep_spacing": self.timestep_spacing, **settings})

    def _requests(
        self, sizes: Sequence[tuple[int, int]], prompts: Sequence[str] | None, negative_prompts: Sequence[str] | None,
        seeds: int | Sequence[int], resolution_px: int | None,
    ) -> list[RowRequest]:  # fmt: skip
        """One request per size, without images and maps."""
        return [
            RowRequest(
                working_size=self.working_size(size, resolution_px=resolution_px), size=size, seed=seed,
                prompt=prompt, negative_prompt=negative_prompt,
            )
            for size, prompt, negative_prompt, seed in rows.aligned(sizes, prompts, negative_prompts, seeds)
        ]  # fmt: skip

    def _names(self, condition: str | Sequence[str]) -> tuple[str, ...]:
        names = (condition,) if isinstance(condition, str) else tuple(condition)
        for name in names:
            self.adapter_kind(name)
        return names


def _single(estimates: Sequence[dict[str, T] | Failure], condition: str) -> list[T | Failure]:
    """The estimates of one condition."""
    return [each if isinstance(each, Failure) else each[condition] for each in estimates]
