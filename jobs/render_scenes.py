#!/usr/bin/env python3
"""Render scenes with exact depth, edges, poses and captions into WebDataset tars: pictures to try on, and truth."""

import argparse
import re
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli
from jobs._arguments import place, whole
from pipelines.scenes.render import default_shard_size, render_scenes

MIN_SIDE_PX, MAX_SIDE_PX = 8, 4096

EXAMPLES = """
examples:
  # a hundred scenes to try the other jobs on
  python jobs/render_scenes.py --output out/scenes --count 100

  # two test sets of a thousand scenes that share no scene
  python jobs/render_scenes.py --output out/test-a --count 1000 --seed 101
  python jobs/render_scenes.py --output out/test-b --count 1000 --seed 102

  # many, on a cluster, straight to an object store
  ray job submit --working-dir . -- python jobs/render_scenes.py \\
      --output s3://bucket/scenes --count 1_000_000 --seed 7 --size 256x256

The same command again renders what is missing; a larger --count adds to what is there. Commands may work on one output
at the same time: of shards that hold the same scenes one stays.

output:
  scenes-sSEED-WxH-START-STOP.tar   samples KEY.png, .txt (caption), .json (camera), .depth.png (16-bit relative
                                    inverse depth, 0 far, 65535 near), .depth_m.npy (float32 metres), .edges.png,
                                    .pose.png (drawn joints and limbs), .people.json (list of mannequins:
                                    joint -> [x, y, visible])
  README.md                         the same in full; README-unicon.md where there is one that is not ours
  _scenes/seed-SEED.json            the shard size, decided by the first command: later ones take it over

The embedded model `mini` was made with seeds below 20 (trained on some, compared on others): measure it on higher ones.
The published numbers are of seed 101.

exit codes:
  0 done, every scene is there once   1 something is left to do   2 a wrong setting
  130, 143 interrupted; the same command goes on
"""


def size_argument(text: str) -> tuple[int, int]:
    """`WIDTHxHEIGHT` in pixels."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.lower())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write WIDTHxHEIGHT in pixels, such as 128x128")
    width, height = int(match[1]), int(match[2])
    if not (MIN_SIDE_PX <= width <= MAX_SIDE_PX and MIN_SIDE_PX <= height <= MAX_SIDE_PX):
        raise argparse.ArgumentTypeError(f"{text}: each side must have {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels")
    return width, height


def parse(arguments: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES)
    parser.add_argument(
        "--output", type=place, required=True, metavar="URI", help="folder or object store prefix for the tars"
    )
    parser.add_argument("--count", type=whole(1), required=True, metavar="N", help="scenes 0 to N - 1 of the seed")
    parser.add_argument(
        "--seed",
        type=whole(0),
        default=0,
        metavar="N",
        help="names an endless sequence of scenes (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=size_argument,
        default=(128, 128),
        metavar="WxH",
        help="of the pictures, in pixels (default: 128x128)",
    )
    parser.add_argument(
        "--shard-size",
        type=whole(1),
        metavar="N",
        help="scenes in a tar, which is one task and is made in memory (default: 1000, fewer above 181x181 pixels)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    shard_size = options.shard_size or default_shard_size(*options.size)
    return render_scenes(options.output, options.seed, options.size, options.count, shard_size)


if __name__ == "__main__":
    _cli.finish(main)
