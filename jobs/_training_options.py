"""The options of `train_adapter.py` that make up its recipe and its workers, and their types."""

import argparse
import re
from argparse import ArgumentParser, _ArgumentGroup, _MutuallyExclusiveGroup

from jobs._arguments import integer, location, named_location, number

MAX_WORKERS = 10_000
FRACTIONS = {
    "text_dropout": (0.1, "p: the image's prompt is dropped in 2 p of the pairs, the condition's in 2 p"),
    "caption_dropout": (0.0, "share of pairs without a caption; their condition keeps its trigger text"),
    "clean_image_fraction": (0.0, "share of pairs with a clean image, as in estimates"),
    "clean_condition_fraction": (0.0, "share of pairs with a clean condition, as in synthesis"),
    "noisy_condition_fraction": (0.0, "share of the pairs with a clean image whose condition is almost only noise"),
    "unjoined_fraction": (0.0, "share of pairs without joint attention"),
}
"""Field of `unicon.training.pairs.PairSampling` -> (its default, help)."""
FIT_OPTIONS = {
    "final_learning_rate_fraction": (0.05, (0, 1), "where the cosine decay ends, as a fraction of the peak"),
    "weight_decay": (0.0, (0, 1), "weight decay of AdamW"),
    "max_grad_norm": (1.0, (1e-6, 1e6), "norm at which gradients are clipped"),
    "ema_decay": (0.999, (0, 0.999999), "decay of the average of the weights, which is what is written"),
}
"""Field of `unicon.training.fit_config.FitConfig` -> (its default, range, help)."""


def worker_range(text: str) -> tuple[int, int]:
    """Parse a number of workers: `4`, or `1-8` for the minimum and the maximum."""
    match = re.fullmatch(r"(\d+)(?:[-:](\d+))?", text)
    fewest, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= fewest <= most <= MAX_WORKERS:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a number of workers; expected N or MIN-MAX, such as 4 or 1-8, from 1 to "
            f"{MAX_WORKERS}"
        )
    return fewest, most


def add_training_options(parser: ArgumentParser) -> None:
    """Add the recipe, its finer settings, and the workers."""
    _add_recipe(parser.add_argument_group("training"))
    _add_details(parser.add_argument_group("details of the recipe (arXiv 2410.11439 where it says so)"))
    _add_machines(parser.add_argument_group("machines"))
    _add_reports(parser.add_argument_group("checkpoints and reports"))


def _add_recipe(recipe: _ArgumentGroup) -> None:
    recipe.add_argument(
        "--rank",
        type=integer(1, 1024),
        metavar="N",
        help="rank of every LoRA (default: 64, or that of the adapter to start from)",
    )
    recipe.add_argument("--steps", type=integer(1), metavar="N", help="optimizer steps (default: 20 epochs)")
    recipe.add_argument(
        "--batch-size",
        type=integer(1, 65_536),
        default=16,
        metavar="N",
        help="pairs per step, of all workers together (default: %(default)s)",
    )
    recipe.add_argument(
        "--learning-rate",
        type=number(1e-9, 1),
        default=1e-4,
        metavar="X",
        help="peak learning rate (default: %(default)s)",
    )
    _add_single_step(recipe)
    _add_scope(recipe)


def _add_single_step(recipe: _ArgumentGroup) -> None:
    recipe.add_argument(
        "--single-step-share",
        type=number(0, 1),
        default=0.0,
        metavar="X",
        help="share of the steps, from 0 to 1, that train estimates in one step end to end through the decoder "
        "(arXiv 2409.11355); the adapter then estimates in one step by default (default: %(default)s)",
    )
    recipe.add_argument(
        "--single-step-steps",
        type=integer(0),
        default=0,
        metavar="N",
        help="train only estimates in one step in the last N steps: a final stage after the pairs (default: "
        "%(default)s)",
    )


def _add_scope(recipe: _ArgumentGroup) -> None:
    recipe.add_argument(
        "--resolution",
        type=integer(16, 8192),
        metavar="PX",
        help="images are scaled to the area of a square of this side (default: native resolution, 512 or 768)",
    )
    recipe.add_argument(
        "--start-from",
        type=named_location,
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="train an existing adapter of the same base further: path, URI or hub id; repeatable, one a condition",
    )
    recipe.add_argument(
        "--seed", type=integer(0), default=0, metavar="N", help="seed of all random numbers (default: %(default)s)"
    )


def _add_details(details: _ArgumentGroup) -> None:
    for name, (default, text) in FRACTIONS.items():
        details.add_argument(
            f"--{name.replace('_', '-')}", type=number(0, 1), default=default, metavar="X",
            help=f"{text} (default: %(default)s)",
        )  # fmt: skip
    details.add_argument(
        "--min-snr-gamma",
        type=number(0, 1000),
        default=5.0,
        metavar="X",
        help="weights of timesteps (arXiv 2303.09556); 0 for none (default: %(default)s)",
    )
    details.add_argument(
        "--warmup-steps",
        type=integer(0),
        metavar="N",
        help="steps until the peak learning rate (default: 100, and at most a tenth of the steps)",
    )
    for name, (default, bounds, text) in FIT_OPTIONS.items():
        details.add_argument(
            f"--{name.replace('_', '-')}", type=number(*bounds), default=default, metavar="X",
            help=f"{text} (default: %(default)s)",
        )  # fmt: skip
    details.add_argument(
        "--flip-probability",
        type=number(0, 1),
        default=0.5,
        metavar="X",
        help="share of rows that are mirrored; left and right joints of poses change places (default: %(default)s)",
    )
    details.add_argument(
        "--random-crop",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether a step sees a random part of each image, or else the largest one (default: random)",
    )


def _add_machines(machines: _ArgumentGroup) -> None:
    machines.add_argument(
        "--num-workers",
        type=worker_range,
        default=(1, 1),
        metavar="N",
        help="with --corpus: processes that train together, each with a GPU if there are GPUs. MIN-MAX trains with as "
        "many as the cluster has room for, and adapts while it runs. The result does not depend on it (default: 1)",
    )
    machines.add_argument(
        "--device",
        metavar="NAME",
        help="cuda or cpu; without --corpus also cuda:1 (default: a GPU if there is one)",
    )
    machines.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="data type of frozen weights and computation; the adapter is trained in float32 (default: bfloat16 on a "
        "GPU, float32 on a CPU)",
    )
    machines.add_argument(
        "--gradient-checkpointing", action="store_true", help="use less memory and about a third more time"
    )
    machines.add_argument(
        "--gradient-accumulation",
        type=integer(1, 65_536),
        default=1,
        metavar="N",
        help="compute the gradient of a batch in N parts, with the memory of one (default: %(default)s)",
    )
    machines.add_argument(
        "--cache-latents",
        action="store_true",
        help="with --corpus: encode every image and map once and keep the latents on the machine's disk; needs "
        "--no-random-crop",
    )


def _add_reports(reports: _ArgumentGroup) -> None:
    reports.add_argument(
        "--checkpoint-every",
        type=integer(1),
        default=500,
        metavar="N",
        help="steps between checkpoints (default: %(default)s)",
    )
    reports.add_argument(
        "--validation-every",
        type=integer(1),
        metavar="N",
        help="steps between estimates for held-out rows (default: at every checkpoint)",
    )
    reports.add_argument(
        "--tensorboard",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="with --corpus: write curves and pictures to WORK/tensorboard too (tensorboard --logdir WORK)",
    )
    reports.add_argument(
        "--wandb",
        metavar="PROJECT",
        help="with --corpus: also send them to this project of Weights & Biases (needs the package wandb)",
    )


def add_corpus_option(source: _MutuallyExclusiveGroup) -> None:
    """Add `--corpus` to the options of which one names the data."""
    source.add_argument(
        "--corpus",
        type=location,
        action="append",
        default=[],
        metavar="URI",
        help="dataset to train on: an output of build_corpus.py or any other job, rendered scenes, or other tars and "
        "Parquet files with images and maps; local or s3://, gs://, ...; repeatable",
    )


def add_corpus_options(data: _ArgumentGroup) -> None:
    """Add the options that name the columns and rows of a corpus."""
    for option, text in (
        ("--image-column", "Parquet column or tar extension of the image (default: image, or the only candidate)"),
        ("--caption-column", "Parquet column, tar extension or JSON field of the caption (default: caption, ...)"),
        ("--weight-column", "Parquet column of numbers, such as a rating: the factor of a row's loss; rows of weight 0 "
         "or without a number are left out"),
    ):  # fmt: skip
        data.add_argument(option, metavar="NAME", help=f"with --corpus: {text}")
    data.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="with --corpus: train only on rows of Parquet files that satisfy a condition, such as 'sharpness>=50'; "
        "repeatable, and all conditions must hold",
    )
    data.add_argument(
        "--max-pixels",
        type=integer(1),
        default=100_000_000,
        metavar="N",
        help="with --corpus: rows whose image has more pixels get the weight 0 (default: %(default)s)",
    )
