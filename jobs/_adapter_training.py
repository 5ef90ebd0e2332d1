"""Checks and settings of `train_adapter.py`."""

import hashlib
import json
import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jobs import _cli
from jobs._training_options import FIT_OPTIONS, FRACTIONS
from pipelines.errors import SettingError
from pipelines.tasks.model_options import parse_adapters

if TYPE_CHECKING:
    from unicon.training.annotators import Annotator
    from unicon.training.recipe import AdapterRecipe, TrainedAdapter

DEFAULTS = {"edge": "canny", "depth": "midas", "pose": "openpose"}
"""Equal to `unicon.training.annotators.DEFAULTS`, whose import takes seconds."""

RANK = 64
"""Rank of the published adapters."""

T = TypeVar("T")


CORPUS_OPTIONS = ("image_column", "caption_column", "weight_column", "where", "cache_latents", "wandb")
"""Options that need `--corpus`."""


def check_images_options(options: Namespace) -> None:
    """Check the options of a training on a folder of images, and reduce lists of which it needs one item.

    Raises:
        SettingError: An option is missing, is one of a corpus, or is wrong.
    """
    given = [f"--{name.replace('_', '-')}" for name in CORPUS_OPTIONS if getattr(options, name)]
    if options.num_workers != (1, 1):
        given.append("--num-workers")
    if given:
        raise SettingError(
            f"{given[0]} needs --corpus; a folder of images is trained in one process. Write the images and their "
            "conditions as a corpus with jobs/build_corpus.py, or leave the option out."
        )
    if len(options.condition) != 1 or options.condition[0] not in DEFAULTS:
        raise SettingError(
            f"--condition: invalid choice: {' '.join(options.condition)!r} (choose one of {', '.join(DEFAULTS)}). "
            "Others, and several together, are trained on a corpus: --corpus URI."
        )
    (options.condition,) = options.condition


def choose_conditions(options: Namespace) -> None:
    """Choose the annotator that creates the conditions, unless `--conditions` gives them.

    Raises:
        SettingError: The annotator does not fit the condition, or an option would have no effect.
    """
    from unicon.training.annotators import choose_annotator

    if options.conditions is None:
        options.annotator, options.annotator_weights = report_as(
            "--annotator", lambda: choose_annotator(options.condition, options.annotator, options.annotator_weights)
        )
        return
    for option in ("annotator", "annotator_weights"):
        if value := getattr(options, option):
            raise SettingError(
                f"--{option.replace('_', '-')} {value} creates conditions, but --conditions {options.conditions} gives "
                "existing ones. Remove one of the options."
            )


def check_weights(options: Namespace, num_images: int) -> None:
    """Check that the weights of the annotator exist if conditions remain to be created."""
    from unicon.training.annotators import ANNOTATORS, find_weights

    if options.conditions is None and len(list(conditions_folder(options).glob("*.png"))) < num_images:
        annotation = ANNOTATORS[options.annotator]
        if annotation.files:
            report_as("--annotator", lambda: find_weights(annotation, options.annotator_weights))


def choose_device(name: str | None) -> str:
    """Return the named device, or the default; raise `SettingError` if it is not available."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    _cli.check_device(name)
    return name


def check_paths(options: Namespace) -> None:
    """Raise `SettingError` unless the input folders are valid and the output and work folders are writable."""
    from unicon.training.photographs import find_images, match_conditions

    images = report_as("--images", lambda: find_images(options.images))
    if options.conditions is not None:
        report_as("--conditions", lambda: match_conditions(images, options.conditions))
    if options.output.suffix != ".safetensors":
        raise SettingError(
            f"--output must be a .safetensors file; got {options.output}. Choose a name that ends in .safetensors."
        )
    _cli.check_adapter_output(options.output)
    for option, folder in (("--output", options.output.parent), ("--work", options.work)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise SettingError(f"{option}: {folder} cannot be written: {error}. Choose another folder.") from error


def make_recipe(options: Namespace, dtype: str, num_rows: int, adapters: "Sequence[TrainedAdapter]") -> "AdapterRecipe":
    """Return the recipe of a command line. Images of a corpus are grouped by shape, others have random shapes."""
    from unicon.training.fit_config import FitConfig
    from unicon.training.pair_rows import PairSampling
    from unicon.training.recipe import AdapterRecipe, epochs_to_steps

    steps = options.steps or epochs_to_steps(num_rows, options.batch_size)
    fit = FitConfig(
        steps=steps,
        learning_rate=options.learning_rate,
        warmup_steps=min(100, steps // 10) if options.warmup_steps is None else options.warmup_steps,
        autocast_dtype=None if dtype == "float32" else dtype,
        checkpoint_every=options.checkpoint_every,
        log_every=min(20, options.checkpoint_every, steps),
        seed=options.seed,
        **{name: getattr(options, name) for name in FIT_OPTIONS},
    )
    sampling = PairSampling(
        batch_size=options.batch_size,
        min_snr_gamma=options.min_snr_gamma or None,
        **{name: getattr(options, name) for name in FRACTIONS},
    )
    return AdapterRecipe(
        adapters=tuple(adapters),
        fit=fit,
        sampling=sampling,
        single_step_share=options.single_step_share,
        single_step_steps=options.single_step_steps,
        resolution_px=options.resolution,
        aspect_buckets=bool(options.corpus),
        random_crop=options.random_crop,
        flip_probability=options.flip_probability,
        gradient_checkpointing=options.gradient_checkpointing,
        gradient_accumulation=options.gradient_accumulation,
        validate_every=options.validation_every,
    )


def images_recipe(options: Namespace, device: str, num_images: int) -> "AdapterRecipe":
    """Return the recipe of a training on a folder of images. Raises SettingError for settings that contradict."""
    from unicon.devices import training_dtype
    from unicon.files.adapters import find_adapter

    name, annotator = options.condition, "" if options.conditions else options.annotator
    starts = parse_adapters(options.start_from, [name], "--start-from")
    start = report_as("--start-from", lambda: find_adapter(starts[name], name)) if starts else None
    trained = trained_adapter(options, name, name, annotator, start)
    dtype = options.dtype or training_dtype(device)
    return report_as("training options", lambda: make_recipe(options, dtype, num_images, [trained]))


def trained_adapter(options: Namespace, name: str, kind: str, annotator: str, start: Path | None) -> "TrainedAdapter":
    """Return an adapter to train, which has the form of the adapter that it starts from, if any.

    Raises:
        SettingError: `--rank` is not that of the adapter to start from.
    """
    from unicon.adapters.config import AdapterConfig, read_config
    from unicon.training.recipe import TrainedAdapter

    if start is None or start.is_dir():  # the official layout says nothing about its form; loading checks it
        config = AdapterConfig(name=name, kind=kind, rank=options.rank or RANK, annotator=annotator)
        return TrainedAdapter(config=config, start_from=start)
    found, _ = report_as("--start-from", lambda: read_config(start))
    if options.rank not in (None, found.rank):
        raise SettingError(
            f"--rank {options.rank}: the adapter to start from, {start}, has rank {found.rank}. Leave --rank out."
        )
    form = {field: getattr(found, field) for field in ("rank", "alpha", "projection", "condition_adapter")}
    config = AdapterConfig(name=name, kind=kind, annotator=annotator or found.annotator, **form)
    return TrainedAdapter(config=config, start_from=start)


def data_settings(options: Namespace) -> dict[str, Any]:
    """Return the settings that the conditions depend on."""
    return {
        "condition": options.condition,
        "images": str(options.images.resolve()),
        "conditions": None if options.conditions is None else str(options.conditions.resolve()),
        "resolution": options.resolution,
        **({} if options.annotator in (None, DEFAULTS[options.condition]) else {"annotator": options.annotator}),
    }


def training_settings(options: Namespace, recipe: "AdapterRecipe", images: Sequence[str]) -> dict[str, Any]:
    """Return the other settings that must not change when a training continues."""
    return {
        "rank": recipe.adapters[0].config.rank,
        "steps": recipe.fit.steps,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
        "single_step_share": options.single_step_share,
        "pictures": f"{len(images)} of names {short_hash({'names': sorted(images)})}",
    }


def conditions_folder(options: Namespace) -> Path:
    """Return the folder in `--work` for conditions with these settings."""
    return options.work / f"conditions-{short_hash(data_settings(options))}"


def short_hash(settings: dict[str, Any]) -> str:
    """Return eight hexadecimal digits that identify settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def annotator_of(options: Namespace, device: str, resolution_px: int) -> "Callable[[], Annotator]":
    """Return a function that loads the annotator of a command line."""
    from unicon.training.annotators import make_annotator

    return lambda: report_as(
        "--annotator",
        lambda: make_annotator(
            options.annotator, weights=options.annotator_weights, device=device, detect_px=resolution_px
        ),
    )


def report_as(option: str, check: Callable[[], T]) -> T:
    """Run a check and report its errors as a wrong value of an option."""
    try:
        return check()
    except SettingError:
        raise
    except (ValueError, OSError, ImportError) as error:
        raise SettingError(f"{option}: {error}") from error
