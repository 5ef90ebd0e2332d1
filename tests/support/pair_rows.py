"""Rows for training: drawn squares with the depth and the edges that follow from them, and a recipe for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from unicon.adapters.config import AdapterConfig
from unicon.conditions import CONDITIONS
from unicon.training.adapter_files import AdapterTraining
from unicon.training.batch_plan import BatchPlan
from unicon.training.batches import RowBatches
from unicon.training.fit_config import FitConfig
from unicon.training.pair_rows import PairSampling
from unicon.training.recipe import AdapterRecipe, TrainedAdapter
from unicon.training.views import PairRow

KINDS = {"depth": "depth", "canny": "edge"}
SIZES = ((40, 40), (60, 30))


def draw_row(index: int, weight: float = 1.0) -> PairRow:
    """Draw a row: a bright square, which is near, with its outline as edges."""
    rng = np.random.default_rng(index)
    width, height = SIZES[index % len(SIZES)]
    left, top = rng.integers(2, width - 16), rng.integers(2, height - 16)
    box = [int(left), int(top), int(left) + 12, int(top) + 12]
    image = Image.new("RGB", (width, height), tuple(rng.integers(0, 90, 3).tolist()))
    ImageDraw.Draw(image).rectangle(box, fill=(200, 180, 160))
    edges = Image.new("L", (width, height))
    ImageDraw.Draw(edges).rectangle(box, outline=255)
    depth = np.full((height, width), 0.2, np.float32)
    depth[box[1] : box[3], box[0] : box[2]] = 0.9
    maps = {"depth": CONDITIONS["depth"].encode(depth), "canny": edges}
    return PairRow(f"row-{index:03d}", image, maps, caption="a square" if index % 2 else "", weight=weight)


def draw_rows(count: int) -> list[PairRow]:
    """Draw rows of different sizes and weights."""
    return [draw_row(index, 0.5 + index % 3) for index in range(count)]


def tiny_recipe(
    names: Sequence[str] = ("canny", "depth"), steps: int = 4, batch_size: int = 4, **options
) -> AdapterRecipe:
    """Return a recipe of adapters of rank 4, for images of about 16 x 16 pixels."""
    fit = {"learning_rate": 1e-3, "warmup_steps": 2, "log_every": 1, "checkpoint_every": 2, **options.pop("fit", {})}
    sampling = options.pop("sampling", {})
    adapters = tuple(TrainedAdapter(config=AdapterConfig(name=name, kind=KINDS[name], rank=4)) for name in names)
    return AdapterRecipe(
        adapters=adapters, fit=FitConfig(steps=steps, **fit), sampling=PairSampling(batch_size=batch_size, **sampling),
        **{"aspect_buckets": True, "resolution_px": 16, **options},
    )  # fmt: skip


def batches_of(rows: Sequence[PairRow], training: AdapterTraining, recipe: AdapterRecipe) -> RowBatches:
    """Return the batches of rows."""
    plan = BatchPlan([row.image.size for row in rows], training.views, recipe.sampling.batch_size, recipe.fit.seed)
    return RowBatches(rows, plan, recipe.kinds)
