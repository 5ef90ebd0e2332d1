#!/usr/bin/env python
"""Train the embedded model `mini` from scratch: scenes, autoencoder, text encoder, UNet and adapters."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from jobs import _cli
from jobs._arguments import integer, local_path, number
from pipelines import storage
from pipelines.errors import SettingError
from unicon.training.mini.recipe import SQUARE, TALL, WIDE, MiniRecipe
from unicon.training.mini.train import train_mini

EXAMPLES = """
examples:
  # everything from scratch
  python jobs/train_mini.py --work runs/mini --output unicon/models/mini

  # continue the training of an existing model, with other shares of the conditions
  python jobs/train_mini.py --work runs/on --output unicon/models/mini --start-from unicon/models/mini --steps 4000 \\
      --seed 4 --share depth=0.4 --share edge=0.2 --share pose=0.4

The training takes hours on a CPU and minutes on a GPU. Run the same command again to continue after an interruption.
The work folder receives the scenes, the checkpoints and the log.jsonl of every stage.

exit codes:
  0 complete   2 wrong setting
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parse(arguments)
    check_output(options.output, options.work)
    for option, folder in (("--work", options.work), ("--output", options.output)):
        storage.check_writable(option, str(folder), ("",))
    if options.start_from is not None and not (options.start_from / "unet" / "config.json").is_file():
        raise SettingError(f"--start-from {options.start_from} is not a model folder: it has no unet/config.json.")
    _cli.check_device(options.device)
    train_mini(
        options.work,
        options.output,
        recipe_of(options),
        options.device,
        options.start_from,
        compiles=options.compile,
    )
    return 0


def check_output(output: Path, work: Path) -> None:
    """Raise `SettingError` if `output` holds anything but a model of this command, which would be replaced."""
    if (work / "together").is_dir():  # the training continues, and the model may be half written
        return
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not any((output / "adapters").glob("*"))):
        raise SettingError(
            f"--output {output} has content that this command did not write and will not replace. Choose an empty or "
            "new folder."
        )
    for adapter in (output / "adapters").glob("*"):
        _cli.check_adapter_output(adapter)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES)
    parser.add_argument(
        "--work", type=local_path, required=True, metavar="DIR", help="folder for scenes, checkpoints and logs"
    )
    parser.add_argument("--output", type=local_path, required=True, metavar="DIR", help="folder to write the model to")
    parser.add_argument(
        "--start-from",
        type=local_path,
        metavar="DIR",
        help="model folder whose weights the training starts from, instead of random ones",
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        metavar="NAME",
        help="cuda, cuda:1 or cpu (default: a GPU if there is one)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the UNet for the joint training with torch.compile, which takes minutes at first; if that fails, "
        "the training runs without",
    )
    _add_recipe_options(parser, MiniRecipe())
    return parser.parse_args(arguments)


def _add_recipe_options(parser: _cli.Parser, recipe: MiniRecipe) -> None:
    for option, kind, default, text in (
        ("--steps", integer(1), recipe.together.steps, "joint training steps of the UNet and its adapters"),
        ("--batch-size", integer(1, 65_536), recipe.sampling.batch_size, "pairs per step"),
        ("--checkpoint-every", integer(1), recipe.together.checkpoint_every, "steps between checkpoints"),
        ("--scenes", integer(12), recipe.scenes[SQUARE], "square scenes; a sixth as many of other shapes are added"),
        ("--seed", integer(0), recipe.seed, "seed of the scenes and of every step"),
    ):
        parser.add_argument(option, type=kind, default=default, metavar="N", help=f"{text} (default: %(default)s)")
    parser.add_argument(
        "--learning-rate-scale",
        type=number(1e-6, 100),
        default=1.0,
        metavar="X",
        help="factor of the learning rates of the joint training; below 1 for small batches that continue from trained "
        "weights (default: %(default)s)",
    )
    parser.add_argument(
        "--single-step-share",
        type=number(0, 1),
        default=recipe.single_step_share,
        metavar="X",
        help="share of the joint training steps that train estimates in one step through the decoder, of all "
        "conditions; 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--share",
        type=_share,
        action="append",
        default=[],
        metavar="CONDITION=SHARE",
        help="share of the other steps that train the adapter of a condition; repeatable (default: "
        f"{_shares_text(recipe.shares)})",
    )


def recipe_of(options: argparse.Namespace) -> MiniRecipe:
    """Return the recipe with the changes of the command line."""
    recipe, scale = MiniRecipe(), options.learning_rate_scale
    matrices = recipe.together.matrix_learning_rate
    together = dataclasses.replace(
        recipe.together,
        steps=options.steps,
        seed=options.seed,
        checkpoint_every=options.checkpoint_every,
        learning_rate=scale * recipe.together.learning_rate,
        matrix_learning_rate=None if matrices is None else scale * matrices,
    )
    return dataclasses.replace(
        recipe,
        scenes={SQUARE: options.scenes, WIDE: options.scenes // 12, TALL: options.scenes // 12},
        seed=options.seed,
        shares={**recipe.shares, **dict(options.share)},
        single_step_share=options.single_step_share,
        together=together,
        sampling=dataclasses.replace(recipe.sampling, batch_size=options.batch_size),
    )


def _share(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    known = MiniRecipe().shares
    try:
        value = float(share)
    except ValueError:
        value = 0.0
    if name not in known or not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"expected CONDITION=SHARE with a condition of {', '.join(known)} and a positive number, such as "
            f"depth=0.6; got {text!r}"
        )
    return name, value


def _shares_text(shares: dict[str, float]) -> str:
    return ", ".join(f"{name}={share}" for name, share in shares.items())


if __name__ == "__main__":
    _cli.finish(main)
