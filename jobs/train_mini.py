#!/usr/bin/env python
"""Train the embedded model `mini` from nothing: scenes, autoencoder, text encoder, UNet and adapters."""

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
from jobs._arguments import local_path, whole
from pipelines import storage
from pipelines.errors import SettingError
from unicon.training.mini.recipe import SQUARE, TALL, WIDE, MiniRecipe, train_mini

EXAMPLES = """
examples:
  # everything from nothing
  python jobs/train_mini.py --work runs/mini --output unicon/models/mini

  # train an existing model on, with other shares of the conditions
  python jobs/train_mini.py --work runs/on --output unicon/models/mini --start-from unicon/models/mini --steps 4000 \\
      --seed 4 --share depth=0.4 --share edge=0.2 --share pose=0.4

Hours on a CPU, minutes on a GPU. Killed and started again, it goes on where it stopped. Progress, checkpoints and logs
(log.jsonl of every stage) lie in the work folder.

exit codes:
  0 done   2 a wrong setting
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says; returns the exit code."""
    options = parse(arguments)
    check_output(options.output, options.work)
    for option, folder in (("--work", options.work), ("--output", options.output)):
        storage.check_writable(option, str(folder), ("",))
    if options.start_from is not None and not (options.start_from / "unet" / "config.json").is_file():
        raise SettingError(f"--start-from {options.start_from} holds no model: there is no unet/config.json in it.")
    _cli.check_device(options.device)
    train_mini(options.work, options.output, recipe_of(options), options.device, options.start_from)
    return 0


def check_output(output: Path, work: Path) -> None:
    """Raises SettingError where a folder holds anything but a model of this command: nothing else is replaced."""
    if (work / "together").is_dir():  # a training that goes on: the model may be half written
        return
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not any((output / "adapters").glob("*"))):
        raise SettingError(
            f"--output {output} holds something that this command did not make, and it is not replaced. Give an empty "
            "folder, or a new one."
        )
    for adapter in (output / "adapters").glob("*"):
        _cli.check_adapter_output(adapter)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    recipe = MiniRecipe()
    parser = _cli.Parser(__doc__ or "", EXAMPLES)
    parser.add_argument(
        "--work", type=local_path, required=True, metavar="DIR", help="folder for scenes, checkpoints and logs"
    )
    parser.add_argument(
        "--output", type=local_path, required=True, metavar="DIR", help="folder that receives the model"
    )
    parser.add_argument(
        "--steps",
        type=whole(1),
        default=recipe.together.steps,
        help="steps of the UNet with its adapters (%(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=whole(1, 65_536),
        default=recipe.sampling.batch_size,
        help="pairs of such a step (%(default)s)",
    )
    parser.add_argument(
        "--checkpoint-every", type=whole(1), default=recipe.together.checkpoint_every, help="such steps (%(default)s)"
    )
    parser.add_argument(
        "--scenes",
        type=whole(12),
        default=recipe.scenes[SQUARE],
        help="square ones; a sixth of them more are not (%(default)s)",
    )
    parser.add_argument(
        "--start-from",
        type=local_path,
        metavar="DIR",
        help="model folder whose weights are trained on, instead of new ones",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--seed", type=whole(0), default=recipe.seed, help="of the scenes and of every step (%(default)s)"
    )
    parser.add_argument(
        "--share",
        type=_share,
        action="append",
        default=[],
        metavar="CONDITION=SHARE",
        help=f"share of the steps that a condition's adapter gets (default: {_shares_text(recipe.shares)})",
    )
    return parser.parse_args(arguments)


def recipe_of(options: argparse.Namespace) -> MiniRecipe:
    """The recipe, with what the command line changes."""
    recipe = MiniRecipe()
    together = dataclasses.replace(
        recipe.together, steps=options.steps, seed=options.seed, checkpoint_every=options.checkpoint_every
    )
    return dataclasses.replace(
        recipe,
        scenes={SQUARE: options.scenes, WIDE: options.scenes // 12, TALL: options.scenes // 12},
        seed=options.seed,
        shares={**recipe.shares, **dict(options.share)},
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
            f"expected CONDITION=SHARE, a condition of {', '.join(known)} and a positive number, as in depth=0.6; "
            f"got {text!r}"
        )
    return name, value


def _shares_text(shares: dict[str, float]) -> str:
    return ", ".join(f"{name}={share}" for name, share in shares.items())


if __name__ == "__main__":
    _cli.finish(main)
