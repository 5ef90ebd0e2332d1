#!/usr/bin/env python3
"""Train UniCon adapters for a Stable Diffusion 1.x or 2.x model, on a corpus or on a folder of images."""

import sys
from argparse import ArgumentTypeError, Namespace, _ArgumentGroup
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli, _corpus_training
from jobs._adapter_training import (
    annotator_of,
    check_images_options,
    check_paths,
    check_weights,
    choose_conditions,
    choose_device,
    conditions_folder,
    data_settings,
    images_recipe,
    report_as,
    training_settings,
)
from jobs._arguments import local_path, location
from jobs._sampling import check_limits
from jobs._training_options import add_corpus_option, add_corpus_options, add_training_options
from pipelines.errors import SettingError

if TYPE_CHECKING:
    from unicon.training.adapter_files import AdapterTraining
    from unicon.training.photographs import Photograph
    from unicon.training.recipe import AdapterRecipe

EXAMPLES = """
examples:
  # from a corpus of jobs/build_corpus.py: a new adapter for its column canny, on two GPUs
  python jobs/train_adapter.py --model /models/stable-diffusion-v1-5 --corpus s3://bucket/corpus --condition canny \\
      --num-workers 2 --work s3://bucket/runs/canny --output s3://bucket/adapters/

  # two adapters together; rows with a rating of 3 or more count, and count by their rating
  python jobs/train_adapter.py --model mini --corpus corpus/ --condition canny=edge --condition near=depth:depth \\
      --weight-column rating --where 'rating>=3' --work runs/two --output adapters/

  # on as many machines as there are, 1 to 8; estimates in one step at the end
  python jobs/train_adapter.py --model owner/stable-diffusion-v1-5 --corpus s3://bucket/corpus --condition depth \\
      --num-workers 1-8 --single-step-steps 2000 --work s3://bucket/runs/depth --output s3://bucket/adapters/

  # from a folder of images: edges, detected by Canny, which needs no weights
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

A corpus has an image column and a column for each condition. --condition NAME trains an adapter called NAME on the
column NAME; NAME=KIND says what kind of map it is (edge, depth, pose, normal, appearance, identity) where neither the
name nor the corpus does, and NAME:COLUMN or NAME=KIND:COLUMN that the column is called otherwise. If photos/NAME.txt
exists, it is the caption of photos/NAME.jpg. Captions improve the generation of images.

The defaults are the published recipe (arXiv 2410.11439): rank 64, batches of 16, 20 epochs, native resolution of the
model; with 17,000 images about half a day on one large GPU. Run the same command again to continue after a crash or
Ctrl-C, with any number of workers. More --steps extend the training; other settings are rejected.

--work receives:
  training/state-STEP.pt (state.pt with --images), log.jsonl, validation.jsonl
  training/validation-STEP.png   held-out images at every checkpoint: image | condition | estimate
  conditions-ID/NAME.png         with --images: condition of every image, created once
  tensorboard/                   with --corpus: the same curves and pictures for TensorBoard

The result is one file, or with --corpus a folder with NAME.safetensors, the published format (official/NAME) and a
model card (README.md). The adapters are used by the other commands and in Python:
  python jobs/estimate.py --condition edge --input photos/ --output edges/ --model /models/stable-diffusion-v1-5 \\
      --adapter adapters/edge.safetensors
  UniCon.from_pretrained("/models/stable-diffusion-v1-5", adapters={"edge": "adapters/edge.safetensors"})

exit codes:
  0 complete   1 stopped; run the same command again to continue   2 wrong setting, or a loss that is not finite
  130, 143 interrupted; run the same command again to continue
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
        help="mini, a Stable Diffusion folder in the diffusers layout, or hub id; with --corpus also its URI",
    )
    data.add_argument(
        "--condition",
        required=True,
        action="append",
        metavar="NAME[=KIND][:COLUMN]",
        help="condition to learn; with --images one of edge, depth and pose; with --corpus see below; repeatable",
    )
    source = data.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=local_path, metavar="DIR", help="folder of images to train on")
    add_corpus_option(source)
    add_corpus_options(data)
    _add_images_options(data)
    data.add_argument(
        "--output",
        required=True,
        type=location,
        metavar="URI",
        help="adapter file to write, NAME.safetensors; with --corpus also a folder for the adapters",
    )
    data.add_argument(
        "--work", required=True, type=location, metavar="URI", help="folder for checkpoints and reports, or conditions"
    )
    add_training_options(parser)
    options = parser.parse_args(arguments)
    if options.images:
        for name in ("output", "work"):
            try:
                setattr(options, name, local_path(getattr(options, name)))
            except ArgumentTypeError as error:
                parser.error(f"argument --{name}: {error}; with --corpus it may be a URI")
    return options


def _add_images_options(data: _ArgumentGroup) -> None:
    data.add_argument(
        "--conditions",
        type=local_path,
        metavar="DIR",
        help="with --images: folder of existing condition maps with the names of their images",
    )
    data.add_argument(
        "--annotator",
        type=location,
        metavar="NAME",
        help="with --images: model that creates the conditions: canny (hard edges, the default for edge), hed or "
        "pidinet (soft edges; the published edge adapter was trained on hed), midas (depth), openpose (pose); recorded "
        "in the adapter",
    )
    data.add_argument(
        "--annotator-weights",
        type=location,
        metavar="NAME",
        help="with --images: folder or hub id with the weights of the annotator; canny needs none (default: "
        "lllyasviel/Annotators)",
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parse(arguments)
    if options.corpus:
        return _corpus_training.train(options)
    check_images_options(options)
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
    from unicon.training.adapter import model_sha256
    from unicon.training.photograph_training import keep_settings
    from unicon.training.photographs import find_images

    folder = report_as("--model", lambda: find_folder(options.model))
    check_limits(ModelLimits.of_folder(folder), SamplingOptions(resolution_px=options.resolution))
    images = list(find_images(options.images))
    recipe = images_recipe(options, device, len(images))
    settings = {**data_settings(options), **training_settings(options, recipe, images)}
    settings["model_sha256"] = model_sha256(folder)
    report_as("--work", lambda: keep_settings(options.work, settings))
    check_weights(options, len(images))
    return recipe, folder


def load(
    options: Namespace, recipe: "AdapterRecipe", folder: Path, device: str
) -> "tuple[AdapterTraining, list[Photograph]]":
    """Load the model with a new adapter, and prepare the images with their conditions."""
    from unicon.training.adapter import load_adapters
    from unicon.training.photograph_rows import split_photographs
    from unicon.training.photographs import prepare_photographs

    training = report_as("--model", lambda: load_adapters(folder, recipe, device))
    source = options.conditions or annotator_of(options, device, training.views.resolution_px)
    photographs = report_as(
        "--conditions" if options.conditions else "--images",
        lambda: prepare_photographs(
            options.images, conditions_folder(options), source, side_px=training.views.kept_side_px
        ),
    )
    report_as("--images", lambda: split_photographs(photographs))
    return training, photographs


def train(
    options: Namespace, recipe: "AdapterRecipe", training: "AdapterTraining", photographs: "list[Photograph]"
) -> None:
    """Train from the beginning or from the latest checkpoint, and write the adapter."""
    import torch

    from unicon.training.photograph_training import train_on_photographs
    from unicon.training.trainer import ResumeError

    try:
        train_on_photographs(training, photographs, recipe, options.work, options.output)
    except ResumeError as error:
        raise SettingError(f"--work: {error}") from error
    except torch.OutOfMemoryError as error:
        raise SettingError(
            f"The device ran out of memory ({str(error).splitlines()[0]}). Add --gradient-checkpointing, or lower "
            "--batch-size or --resolution."
        ) from error


if __name__ == "__main__":
    _cli.finish(main)
