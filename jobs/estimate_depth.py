#!/usr/bin/env python3
"""Estimate the depth of every picture of a collection, on as many GPUs as there are: estimate.py for depth."""

import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli, estimate

CONDITION = "depth"

EXAMPLES = """
examples:
  # a folder of pictures, the model that ships with this project, on this machine
  python jobs/estimate_depth.py --input photos/ --output depth/

  # WebDataset tars on S3, a Stable Diffusion model with a UniCon depth adapter, on the GPUs of a cluster
  ray job submit --working-dir . -- python jobs/estimate_depth.py \\
      --input 's3://bucket/shards/{00000..00099}.tar' --output s3://bucket/depth \\
      --model /models/stable-diffusion-v1-5 --adapter /models/unicon/depth --steps 20

  # try a hundred samples of a Parquet dataset first
  python jobs/estimate_depth.py --input data/*.parquet --output trial/ --image-column picture --limit 100

The same command again does what is left: after a crash, after a Ctrl-C, or the next night when files have been added.

output:
  data/*.parquet     rows: key, image, depth (16-bit PNG, 0 far, 65535 near), caption, sizes, provenance
  errors/*.parquet   samples that could not be processed: key, shard, position, stage, reason
  README.md, preview.png, report.html
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES + _cli.EXIT_CODES)
    estimate.add_options(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return _cli.run_task(parse(arguments), [CONDITION], estimate.task_run)


if __name__ == "__main__":
    _cli.finish(main)
