#!/usr/bin/env python3
"""Train a UniCon adapter (edge, depth or pose) for a Stable Diffusion 1.x or 2.x model on your own images."""

import sys
from argparse import Namespace, _ArgumentGroup
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli
from jobs._adapter_training import (
    annotator_of,
    check_paths,
    check_weights,
    choose_conditions,
    choose_device,
    conditions_folder,
    data_settings,
    make_recipe,
    report_as,
    training_settings,
)
from jobs._arguments import integer, local_path, location, number
from jobs._sampling import check_limits
from pipelines.errors import SettingError

if TYPE_CHECKING:
    from unicon.training.adapter import AdapterRecipe, AdapterTraining
    from unicon.training.photographs import Photograph

EXAMPLES = """
examples:
  # edges, detected by Canny, which needs no weights
  python jobs/train_adapter.py --model /models/stable-diffusion-v1-5 --images photos/ --condition edge \\
      --output adapters/edge.safetensors --work runs/edge

  # depth, estimated by MiDaS with weights from a folder; settings for less GPU memory
  python jobs/train_adapter.py --model owner/stable-diffusion-v1-5 --images photos/ --condition depth \\
      --annotator-weights /models/Annotators --output adapters/depth.safetensors --work runs/depth \\
      --gradient-checkpointing --batch-size 8

  # soft edges, as used for the published edge adapter
  python jobs/train_adapter.py --model /models/stable-diffusion-v1-5 --images photos/ --condition edge \\
      --annotator hed --annotator-weights /models/Annotators --output adapters/soft-edge.safetensors --work runs/soft

  # a depth adapter that estimates in one step; half of the steps train for it
  python jobs/train_adapter.py --model /models/stable-diffusion-v1-5 --images photos/ --condition depth \\
      --single-step-share 0.5 --output adapters/depth.safetensors --work runs/fast-depth

  # your own depth maps (black far, white near): maps/NAME.png belongs to photos/NAME.jpg
  python jobs/train_adapter.py --model /models/stable-diffusion-v1-5 --images photos/ --condition depth \\
      --conditions maps/ --output adapters/depth.safetensors --work runs/depth

If photos/NAME.txt exists, it is the caption of photos/NAME.jpg. Captions improve the generation of images.

The defaults are the published recipe (arXiv 2410.11439): rank 64, batches of 16, 20 epochs, native resolution of the
model; with 17,000 images about half a day on one large GPU. Run the same command again to continue after a crash or
Ctrl-C. More --steps extend the training; other settings are rejected.

--work receives:
  conditions-ID/NAME.png         condition of every image, created once
  training/validation-STEP.png   held-out images at every checkpoint: image | condition | estimate
  training/log.jsonl, validation.jsonl, state.pt

The result is one file, to be used by the other commands and in Python:
  python jobs/estimate.py --condition edge --input photos/ --output edges/ --model /models/stable-diffusion-v1-5 \\
      --adapter adapters/edge.safetensors
  UniCon.from_pretrained("/models/stable-diffusion-v1-5", adapters={"edge": "adapters/edge.safetensors"})

exit codes:
  0 complete   2 wrong setting   130 interrupted; run the same command again to continue
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--model",
        required=True,
        type=location,
        metavar="NAME",
        help="Stable Diffusion folder in the diffusers layout, or hub id",
    )
    data.add_argument("--images", required=True, type=local_path, metavar="DIR", help="folder of images")
    data.add_argument("--condition", required=True, choices=("edge", "depth", "pose"), help="condition to learn")
    data.add_argument(
        "--conditions",
        type=local_path,
        metavar="DIR",
        help="folder of existing condition maps with the names of their images",
    )
    data.add_argument(
        "--annotator",
        type=location,
        metavar="NAME",
        help="model that creates the conditions: canny (hard edges, the default for edge), hed or pidinet (soft edges; "
        "the published edge adapter was trained on hed), midas (depth), openpose (pose); recorded in the adapter",
    )
    data.add_argument(
        "--annotator-weights",
        type=location,
        metavar="NAME",
        help="folder or hub id with the weights of the annotator; canny needs none (default: lllyasviel/Annotators)",
    )
    data.add_argument(
        "--output", required=True, type=local_path, metavar="FILE", help="adapter file to write, NAME.safetensors"
    )
    data.add_argument(
        "--work", required=True, type=local_path, metavar="DIR", help="folder for conditions and checkpoints"
    )
    _add_training_options(parser)
    return parser.parse_args(arguments)


def _add_training_options(parser: _cli.Parser) -> None:
    recipe = parser.add_argument_group("training")
    recipe.add_argument(
        "--rank", type=integer(1, 1024), default=64, metavar="N", help="rank of every LoRA (default: %(default)s)"
    )
    recipe.add_argument("--steps", type=integer(1), metavar="N", help="optimizer steps (default: 20 epochs)")
    recipe.add_argument(
        "--batch-size", type=integer(1, 65_536), default=16, metavar="N", help="pairs per step (default: %(default)s)"
    )
    recipe.add_argument(
        "--learning-rate",
        type=number(1e-9, 1),
        default=1e-4,
        metavar="X",
        help="peak learning rate (default: %(default)s)",
    )
    recipe.add_argument(
        "--single-step-share",
        type=number(0, 1),
        default=0.0,
        metavar="X",
        help="share of the steps, from 0 to 1, that train estimates in one step end to end through the decoder "
        "(arXiv 2409.11355); the adapter then estimates in one step by default (default: %(default)s)",
    )
    recipe.add_argument(
        "--resolution",
        type=integer(16, 8192),
        metavar="PX",
        help="images are scaled to the area of a square of this side (default: native resolution, 512 or 768)",
    )
    recipe.add_argument(
        "--seed", type=integer(0), default=0, metavar="N", help="seed of all random numbers (default: %(default)s)"
    )
    _add_device_options(recipe)


def _add_device_options(recipe: _ArgumentGroup) -> None:
    recipe.add_argument(
        "--checkpoint-every",
        type=integer(1),
        default=500,
        metavar="N",
        help="steps between checkpoints (default: %(default)s)",
    )
    recipe.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="data type of frozen weights and computation; the adapter is trained in float32 (default: bfloat16 on a "
        "GPU, float32 on a CPU)",
    )
    recipe.add_argument(
        "--gradient-checkpointing", action="store_true", help="use less memory and about a third more time"
    )
    recipe.add_argument("--device", metavar="NAME", help="cuda, cuda:1 or cpu (default: a GPU if there is one)")


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parse(arguments)
    choose_conditions(options)
    check_paths(options)
    device = choose_device(options.device)
    recipe, folder = begin(options, device)
    training, photographs = load(options, recipe, folder, device)
    train(options, recipe, training, photographs)
    print(f"{options.output}: {recipe.fit.steps} steps on {len(photographs)} images", file=sys.stderr)
    return 0


def begin(options: Namespace, device: str) -> "tuple[AdapterRecipe, Path]":
    """Return the recipe and the model folder, after the settings are recorded in the work folder.

    Raises:
        SettingError: The model does not fit, or the work folder belongs to a training with other settings.
    """
    from unicon.files.folder import find_folder
    from unicon.limits import ModelLimits
    from unicon.options import SamplingOptions
    from unicon.training import adapter
    from unicon.training.photographs import find_images

    folder = report_as("--model", lambda: find_folder(options.model))
    check_limits(ModelLimits.of_folder(folder), SamplingOptions(resolution_px=options.resolution))
    images = list(find_images(options.images))
    recipe = make_recipe(options, device, len(images))
    settings = {**data_settings(options), **training_settings(options, recipe, images)}
    settings["model_sha256"] = adapter.model_sha256(folder)
    report_as("--work", lambda: adapter.keep_settings(options.work, settings))
    check_weights(options, len(images))
    return recipe, folder


def load(
    options: Namespace, recipe: "AdapterRecipe", folder: Path, device: str
) -> "tuple[AdapterTraining, list[Photograph]]":
    """Load the model with a new adapter, and prepare the images with their conditions."""
    from unicon.training import adapter
    from unicon.training.photographs import prepare_photographs

    training = report_as("--model", lambda: adapter.load_for_training(folder, recipe, device))
    source = options.conditions or annotator_of(options, device, training.views.resolution_px)
    photographs = report_as(
        "--conditions" if options.conditions else "--images",
        lambda: prepare_photographs(
            options.images, conditions_folder(options), source, side_px=training.views.kept_side_px
        ),
    )
    report_as("--images", lambda: adapter.split_photographs(photographs))
    return training, photographs


def train(
    options: Namespace, recipe: "AdapterRecipe", training: "AdapterTraining", photographs: "list[Photograph]"
) -> None:
    """Train from the beginning or from the latest checkpoint, and write the adapter."""
    import torch

    from unicon.training.adapter import train_adapter
    from unicon.training.trainer import ResumeError

    try:
        train_adapter(training, photographs, recipe, options.work, options.output)
    except ResumeError as error:
        raise SettingError(f"--work: {error}") from error
    except torch.OutOfMemoryError as error:
        raise SettingError(
            f"The device ran out of memory ({str(error).splitlines()[0]}). Add --gradient-checkpointing, or lower "
            "--batch-size or --resolution."
        ) from error


if __name__ == "__main__":
    _cli.finish(main)
