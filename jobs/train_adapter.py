#!/usr/bin/env python3
"""Train a UniCon adapter (edge, depth or pose) for a Stable Diffusion 1.x or 2.x model on your own pictures."""

import hashlib
import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli
from jobs._arguments import local_path, number, place, whole
from jobs._sampling import check_limits
from pipelines.errors import SettingError

DEFAULTS = {"edge": "canny", "depth": "midas", "pose": "openpose"}
"""`unicon.training.annotators.DEFAULTS`, whose import takes seconds."""

if TYPE_CHECKING:
    from unicon.training.adapter import AdapterRecipe
    from unicon.training.annotators import Annotator

T = TypeVar("T")

EXAMPLES = """
examples:
  # edges: found by Canny, which needs no weights of its own
  python jobs/train_adapter.py --model /models/stable-diffusion-v1-5 --images photos/ --condition edge \\
      --output adapters/edge.safetensors --work runs/edge

  # depth, estimated by MiDaS with the weights in a folder; less memory
  python jobs/train_adapter.py --model owner/stable-diffusion-v1-5 --images photos/ --condition depth \\
      --annotator-weights /models/Annotators --output adapters/depth.safetensors --work runs/depth \\
      --gradient-checkpointing --batch-size 8

  # soft edges, as the published edge adapter was trained on
  python jobs/train_adapter.py --model /models/stable-diffusion-v1-5 --images photos/ --condition edge \\
      --annotator hed --annotator-weights /models/Annotators --output adapters/soft-edge.safetensors --work runs/soft

  # your own depth maps (0 far, white near): maps/NAME.png belongs to photos/NAME.jpg
  python jobs/train_adapter.py --model /models/stable-diffusion-v1-5 --images photos/ --condition depth \\
      --conditions maps/ --output adapters/depth.safetensors --work runs/depth

photos/NAME.txt, where there is one, is the caption of photos/NAME.jpg. Captions help when the adapter later draws.

The defaults are the published recipe (arXiv 2410.11439): rank 64, batches of 16, 20 epochs, the model's own resolution;
with 17,000 pictures about half a day on one large GPU. The same command again goes on after a crash or a Ctrl-C; with
more --steps it trains on, with other settings it is refused.

--work receives:
  conditions-ID/NAME.png         the condition of every picture, made once
  training/validation-STEP.png   held-out pictures: image | condition | estimate, at every checkpoint
  training/log.jsonl, validation.jsonl, state.pt

The result is one file, for the other commands and for Python:
  python jobs/estimate.py --condition edge --input photos/ --output edges/ --model /models/stable-diffusion-v1-5 \\
      --adapter adapters/edge.safetensors
  UniCon.from_pretrained("/models/stable-diffusion-v1-5", adapters={"edge": "adapters/edge.safetensors"})

exit codes:
  0 done   2 a wrong setting   130 interrupted; the same command goes on
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--model", required=True, type=place, metavar="NAME", help="Stable Diffusion folder (diffusers) or hub id"
    )
    data.add_argument("--images", required=True, type=local_path, metavar="DIR", help="folder of pictures")
    data.add_argument("--condition", required=True, choices=("edge", "depth", "pose"), help="what to learn")
    data.add_argument(
        "--conditions", type=local_path, metavar="DIR", help="folder of finished conditions, named as their pictures"
    )
    data.add_argument(
        "--annotator",
        type=place,
        metavar="NAME",
        help="what makes the conditions: canny (hard edges, the default for edge), hed or pidinet (soft edges; the "
        "published edge adapter was trained on hed), midas (depth), openpose (pose); the adapter says which it was",
    )
    data.add_argument(
        "--annotator-weights",
        type=place,
        metavar="NAME",
        help="folder or hub id with the annotator's weights; canny needs none (default: lllyasviel/Annotators)",
    )
    data.add_argument("--output", required=True, type=local_path, metavar="FILE", help="the adapter, NAME.safetensors")
    data.add_argument(
        "--work", required=True, type=local_path, metavar="DIR", help="folder for conditions and checkpoints"
    )
    _add_training_options(parser)
    return parser.parse_args(arguments)


def _add_training_options(parser: _cli.Parser) -> None:
    recipe = parser.add_argument_group("training")
    recipe.add_argument(
        "--rank", type=whole(1, 1024), default=64, metavar="N", help="of every LoRA (default: %(default)s)"
    )
    recipe.add_argument("--steps", type=whole(1), metavar="N", help="optimiser steps (default: 20 epochs)")
    recipe.add_argument(
        "--batch-size", type=whole(1, 65_536), default=16, metavar="N", help="pairs a step (default: %(default)s)"
    )
    recipe.add_argument(
        "--learning-rate", type=number(1e-9, 1), default=1e-4, metavar="X", help="peak (default: %(default)s)"
    )
    recipe.add_argument(
        "--resolution",
        type=whole(16, 8192),
        metavar="PX",
        help="pictures have the area of a square of this side (default: the model's own, 512 or 768)",
    )
    recipe.add_argument(
        "--seed", type=whole(0), default=0, metavar="N", help="of everything random (default: %(default)s)"
    )
    recipe.add_argument(
        "--checkpoint-every", type=whole(1), default=500, metavar="N", help="steps (default: %(default)s)"
    )
    recipe.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="of frozen weights and arithmetic; the adapter is float32 (default: bfloat16 on a GPU, float32 on a CPU)",
    )
    recipe.add_argument("--gradient-checkpointing", action="store_true", help="less memory, about a third more time")
    recipe.add_argument("--device", metavar="NAME", help="cuda, cuda:1, cpu (default: a GPU where there is one)")


def choose_conditions(options: Namespace) -> None:
    """Decide which annotator makes the conditions, if one does. Raises SettingError where an option has no effect."""
    from unicon.training.annotators import choose_annotator

    if options.conditions is None:
        options.annotator, options.annotator_weights = _setting(
            "--annotator", lambda: choose_annotator(options.condition, options.annotator, options.annotator_weights)
        )
        return
    for option in ("annotator", "annotator_weights"):
        if value := getattr(options, option):
            raise SettingError(
                f"--{option.replace('_', '-')} {value} makes conditions, and --conditions {options.conditions} gives "
                "finished ones. Leave one of them out."
            )


def check_weights(options: Namespace, pictures: int) -> None:
    """Look for the annotator's weights before anything is loaded, where conditions are still to be made."""
    from unicon.training.annotators import ANNOTATORS, find_weights

    made = options.work / f"conditions-{short_hash(data_settings(options))}"
    if options.conditions is None and len(list(made.glob("*.png"))) < pictures:
        annotation = ANNOTATORS[options.annotator]
        if annotation.files:
            _setting("--annotator", lambda: find_weights(annotation, options.annotator_weights))


def choose_device(name: str | None) -> str:
    """A device that is there; SettingError for others."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    _cli.check_device(name)
    return name


def check_paths(options: Namespace) -> None:
    """SettingError unless the folders make sense and output and work can be written."""
    from unicon.training.photographs import find_pictures, match_conditions

    pictures = _setting("--images", lambda: find_pictures(options.images))
    if options.conditions is not None:
        _setting("--conditions", lambda: match_conditions(pictures, options.conditions))
    if options.output.suffix != ".safetensors":
        raise SettingError(f"--output is a .safetensors file; got {options.output}. Name it NAME.safetensors.")
    _cli.check_adapter_output(options.output)
    for option, folder in (("--output", options.output.parent), ("--work", options.work)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise SettingError(f"{option}: {folder} cannot be written: {error}. Choose another place.") from error


def default_dtype(device: str) -> str:
    """Arithmetic that is fast on a device: bfloat16 on GPUs that have it, float16 on older ones."""
    import torch

    if not device.startswith("cuda"):
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def make_recipe(options: Namespace, device: str, pictures: int) -> "AdapterRecipe":
    """The recipe of a command line."""
    from unicon.training.adapter import AdapterRecipe, published_steps
    from unicon.training.fit import FitConfig
    from unicon.training.pairs import PairSampling

    steps = options.steps or published_steps(pictures, options.batch_size)
    dtype = options.dtype or default_dtype(device)
    fit = FitConfig(
        steps=steps,
        learning_rate=options.learning_rate,
        warmup_steps=min(100, steps // 10),
        autocast_dtype=None if dtype == "float32" else dtype,
        checkpoint_every=options.checkpoint_every,
        log_every=min(20, options.checkpoint_every, steps),
        seed=options.seed,
    )
    return AdapterRecipe(
        condition=options.condition,
        fit=fit,
        rank=options.rank,
        sampling=PairSampling(batch_size=options.batch_size),
        resolution_px=options.resolution,
        gradient_checkpointing=options.gradient_checkpointing,
        annotator="" if options.conditions else options.annotator,
    )


def data_settings(options: Namespace) -> dict[str, Any]:
    """What the conditions of a run depend on."""
    return {
        "condition": options.condition,
        "images": str(options.images.resolve()),
        "conditions": None if options.conditions is None else str(options.conditions.resolve()),
        "resolution": options.resolution,
        **({} if options.annotator in (None, DEFAULTS[options.condition]) else {"annotator": options.annotator}),
    }


def training_settings(options: Namespace, recipe: "AdapterRecipe", pictures: Sequence[str]) -> dict[str, Any]:
    """What else a training goes on with, or not at all."""
    return {
        "rank": options.rank,
        "steps": recipe.fit.steps,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
        "pictures": f"{len(pictures)} of names {short_hash({'names': sorted(pictures)})}",
    }


def short_hash(settings: dict[str, Any]) -> str:
    """Eight hexadecimal digits that tell settings apart."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    choose_conditions(options)
    check_paths(options)
    device = choose_device(options.device)
    import torch

    from unicon.files.folder import find_folder
    from unicon.limits import ModelLimits
    from unicon.options import SamplingOptions
    from unicon.training import adapter
    from unicon.training.fit import ResumeError
    from unicon.training.photographs import find_pictures, prepare_photographs

    folder = _setting("--model", lambda: find_folder(options.model))
    check_limits(ModelLimits.of_folder(folder), SamplingOptions(resolution_px=options.resolution))
    pictures = list(find_pictures(options.images))
    recipe = make_recipe(options, device, len(pictures))
    settings = {**data_settings(options), **training_settings(options, recipe, pictures)}
    settings["model_sha256"] = adapter.model_sha256(folder)
    _setting("--work", lambda: adapter.keep_settings(options.work, settings))
    check_weights(options, len(pictures))
    training = _setting("--model", lambda: adapter.load_for_training(folder, recipe, device))
    source = options.conditions or annotator_of(options, device, training.views.resolution_px)
    photographs = _setting(
        "--conditions" if options.conditions else "--images",
        lambda: prepare_photographs(
            options.images,
            options.work / f"conditions-{short_hash(data_settings(options))}",
            source,
            side_px=training.views.kept_side_px,
        ),
    )
    _setting("--images", lambda: adapter.split_photographs(photographs))
    try:
        adapter.train_adapter(training, photographs, recipe, options.work, options.output)
    except ResumeError as error:
        raise SettingError(f"--work: {error}") from error
    except torch.OutOfMemoryError as error:
        raise SettingError(
            f"the device's memory is too small for this training ({str(error).splitlines()[0]}). "
            "Add --gradient-checkpointing, or lower --batch-size or --resolution."
        ) from error
    print(f"{options.output}: {recipe.fit.steps} steps on {len(photographs)} pictures", file=sys.stderr)
    return 0


def annotator_of(options: Namespace, device: str, resolution_px: int) -> "Callable[[], Annotator]":
    """What makes the annotator of a command line, when it is needed."""
    from unicon.training.annotators import make_annotator

    return lambda: _setting(
        "--annotator",
        lambda: make_annotator(
            options.annotator, weights=options.annotator_weights, device=device, detect_px=resolution_px
        ),
    )


def _setting(option: str, check: Callable[[], T]) -> T:
    """Do something whose failure means that an option is wrong."""
    try:
        return check()
    except SettingError:
        raise
    except (ValueError, OSError, ImportError) as error:
        raise SettingError(f"{option}: {error}") from error


if __name__ == "__main__":
    _cli.finish(main)
