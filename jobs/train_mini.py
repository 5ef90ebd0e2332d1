#!/usr/bin/env python
"""Train the embedded model ``mini`` from nothing: scenes, autoencoder, text encoder, UNet and adapters.

    python jobs/train_mini.py --work runs/mini --output unicon/models/mini
    python jobs/train_mini.py --work runs/on --output unicon/models/mini --start-from unicon/models/mini --steps 4000

Hours on a CPU, minutes on a GPU. Killed and started again, it goes on where it stopped. Progress, checkpoints and logs
(log.jsonl of every stage) lie in the work folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from unicon.training.mini import MiniRecipe, train_mini


def main() -> None:
    """Parse the command line and train."""
    recipe = MiniRecipe()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for scenes, checkpoints and logs")
    parser.add_argument("--output", type=Path, required=True, help="folder that receives the model")
    parser.add_argument(
        "--steps", type=int, default=recipe.together.steps, help="steps of the UNet with its adapters (%(default)s)"
    )
    parser.add_argument(
        "--start-from", type=Path, help="model folder whose weights are trained on, instead of new ones"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=recipe.seed, help="seed of the scenes (%(default)s)")
    parser.add_argument(
        "--share",
        type=_share,
        action="append",
        metavar="CONDITION=SHARE",
        help=f"share of the steps that a condition's adapter gets (default: {_shares_text(recipe.shares)})",
    )
    options = parser.parse_args()
    recipe = dataclasses.replace(
        recipe,
        seed=options.seed,
        shares=dict(options.share) if options.share else recipe.shares,
        together=dataclasses.replace(recipe.together, steps=options.steps, seed=options.seed),
    )
    train_mini(options.work, options.output, recipe, options.device, options.start_from)


def _share(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected CONDITION=SHARE, as in depth=0.6; got {text!r}") from None


def _shares_text(shares: dict[str, float]) -> str:
    return ", ".join(f"{name}={share}" for name, share in shares.items())


if __name__ == "__main__":
    main()
