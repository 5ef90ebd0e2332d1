"""Training one adapter on the photographs of a folder, in one process, with everything in a local work folder.

Tested in tests/jobs/test_train_adapter.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from unicon.training import settings
from unicon.training.adapter import captions_cut, train_adapters
from unicon.training.adapter_files import AdapterTraining, write_adapter
from unicon.training.batch_plan import BatchPlan
from unicon.training.batches import RowBatches
from unicon.training.checkpoints import STATE_FILE, FolderCheckpoints
from unicon.training.fit import FolderLog
from unicon.training.photograph_rows import PhotographRows, split_photographs
from unicon.training.photographs import Photograph
from unicon.training.recipe import AdapterRecipe

SETTINGS_FILE, TRAINING_FOLDER = "settings.json", "training"
"""Names in the work folder."""


def keep_settings(work: Path, new: dict[str, Any]) -> None:
    """Write the settings of a training into its work folder.

    Raises:
        ValueError: The folder holds a checkpoint of a training with other settings.
    """
    path = work / SETTINGS_FILE
    if path.exists() and not _is_ours(path):
        raise ValueError(
            f"A work folder holds the files of its training; {path} was not written by one and is not replaced. Choose "
            "another work folder."
        )
    settings.keep_settings(path, new, has_begun=(work / TRAINING_FOLDER / STATE_FILE).exists())


def _is_ours(path: Path) -> bool:
    """Whether a file holds the settings of a training, in the form of this or an earlier version."""
    try:
        known = json.loads(path.read_text())
    except (ValueError, OSError):
        return False
    return isinstance(known, dict) and {"condition", "images", "model_sha256"} <= known.keys()


def train_on_photographs(
    training: AdapterTraining, photographs: Sequence[Photograph], recipe: AdapterRecipe, work: Path, output: Path
) -> None:
    """Train in place and write `output`. If killed and started again, training resumes where it stopped.

    Args:
        training: The result of `load_adapters` with the same recipe, which has one adapter.
        photographs: The training data. A few photographs are held out for validation.
        recipe: The recipe.
        work: Its `TRAINING_FOLDER` receives checkpoints, log.jsonl, validation.jsonl and validation-STEP.png.
        output: The adapter, one safetensors file in float16, replaced at every checkpoint.
    """
    (name,) = recipe.kinds
    learned, held_out = split_photographs(photographs)
    views, batch_size = training.views, recipe.sampling.batch_size
    rows = PhotographRows(learned, name, views.kept_side_px)
    plan = BatchPlan(rows.sizes(), views, batch_size, recipe.fit.seed)
    folder = work / TRAINING_FOLDER
    _say_captions_cut(training, learned)
    train_adapters(
        training,
        RowBatches(rows, plan, recipe.kinds),
        recipe,
        FolderCheckpoints(folder),
        held_out=list(PhotographRows(held_out, name, views.resolution_px)),
        on_metrics=FolderLog(folder, batch_size),
        on_validation=lambda step, numbers, sheets: _keep_validation(folder, step, numbers, sheets[name]),
        on_checkpoint=lambda step: write_adapter(training, name, output),
    )
    write_adapter(training, name, output)


def _keep_validation(folder: Path, step: int, numbers: dict[str, float], sheet: Image.Image) -> None:
    """Print the numbers, append them to validation.jsonl, and write the sheet."""
    line = json.dumps({"step": step, **{name: round(value, 5) for name, value in numbers.items()}})
    print(line, flush=True)
    with (folder / "validation.jsonl").open("a") as file:
        file.write(line + "\n")
    sheet.save(folder / f"validation-{step:06d}.png")


def _say_captions_cut(training: AdapterTraining, photographs: Sequence[Photograph]) -> None:
    for name, count in captions_cut(training, [each.caption for each in photographs]).items():
        print(
            f"{count} of {len(photographs)} captions, with {training.configs[name].trigger!r} before them, are longer "
            f"than the {training.models.tokenizer.model_max_length} tokens that the text encoder takes, and are cut",
            file=sys.stderr,
        )
