#!/usr/bin/env python3
"""Estimate depth for every image of a dataset, on all available GPUs (estimate.py with --condition depth)."""

import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli, estimate

CONDITION = "depth"

EXAMPLES = """
examples:
  # a folder of images, with the model included in this project, on this machine
  python jobs/estimate_depth.py --input photos/ --output depth/

  # WebDataset shards on S3, Stable Diffusion with a UniCon depth adapter, on the GPUs of a Ray cluster
  ray job submit --working-dir . -- python jobs/estimate_depth.py \\
      --input 's3://bucket/shards/{00000..00099}.tar' --output s3://bucket/depth \\
      --model /models/stable-diffusion-v1-5 --adapter /models/unicon/depth --steps 20

  # a trial run on 100 samples of a Parquet dataset
  python jobs/estimate_depth.py --input data/*.parquet --output trial/ --image-column photo --limit 100

Run the same command again to continue after a crash or Ctrl-C, or to process files that were added since.

output:
  data/*.parquet     rows: key, image, depth (16-bit PNG, 0 far, 65535 near), caption, sizes, provenance
  errors/*.parquet   samples that failed: key, shard, position, stage, reason
  README.md, preview.png, report.html
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES + _cli.EXIT_CODES)
    estimate.add_options(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return _cli.run_task(parse(arguments), [CONDITION], estimate.task_run)


if __name__ == "__main__":
    _cli.finish(main)
