#!/usr/bin/env python3
"""Estimate conditions (depth, edge, pose, ...) for every image of a dataset, on all available GPUs."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli, _options
from jobs._arguments import integer
from jobs._presets import estimation_views
from jobs._sampling import ESTIMATION_DEFAULTS, sampling_of

if TYPE_CHECKING:
    from pipelines.dataset.card import Card
    from pipelines.runs.task_run import PlaceableModel, TaskRun
    from pipelines.tasks.estimation import Estimation
    from pipelines.tasks.model_identity import ModelIdentity

CODE_VERSION = "1"
"""Written to every row and part of the configuration hash. Increment it when equal settings produce different rows."""

EXAMPLES = """
examples:
  # edges for a folder of images, with your own adapter
  python jobs/estimate.py --condition edge --input photos/ --output edges/ --adapter adapters/edge.safetensors

  # poses, on the GPUs of a Ray cluster
  ray job submit --working-dir . -- python jobs/estimate.py --condition pose \\
      --input 's3://bucket/shards/{00000..00099}.tar' --output s3://bucket/poses \\
      --model /models/stable-diffusion-v1-5 --adapter /models/unicon/pose --steps 20

  # depth, edges and poses in one pass: the images are read and processed once
  python jobs/estimate.py --condition depth edge pose --input photos/ --output maps/

  # depth as the median of five estimates with a confidence map; then a second condition for the same images
  python jobs/estimate.py --input photos/ --output depth/ --ensemble 5
  python jobs/estimate.py --input depth/ --output depth-pose/ --condition pose --model /models/with-pose

Run the same command again to continue after a crash or Ctrl-C, or to process files that were added since.

output:
  data/*.parquet     rows: key, image, CONDITION (depth: 16-bit PNG; edge: 8-bit; pose: RGB), confidence (with
                     --ensemble; of several conditions CONDITION_confidence), caption, sizes, provenance
  errors/*.parquet   samples that failed: key, shard, position, stage, reason
  README.md, preview.png, report.html
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES + _cli.EXIT_CODES)
    parser.add_argument(
        "--condition",
        nargs="+",
        default=["depth"],
        metavar="NAME",
        help="conditions to estimate: the names of their adapters and of the output columns. Several are estimated in "
        "one pass, with the most steps and views that one of their adapters recommends unless they are given "
        "(default: depth)",
    )
    add_options(parser)
    options = parser.parse_args(arguments)
    options.condition = list(dict.fromkeys(options.condition))
    return options


def add_options(parser: _cli.Parser) -> None:
    """Add all options except the condition."""
    data = parser.add_argument_group("data")
    _options.add_input_option(data)
    _options.add_image_column_option(data)
    _options.add_data_options(data)
    model = parser.add_argument_group("model")
    _options.add_model_options(model, ESTIMATION_DEFAULTS)
    model.add_argument(
        "--ensemble",
        type=integer(2, 100),
        metavar="K",
        help="use the median of K estimates, which is K times as slow, and add a column confidence, which is 1 where "
        "they agree (default: off)",
    )
    model.add_argument(
        "--views",
        type=int,
        choices=(1, 2, 4),
        metavar="N",
        help="average the estimates of N views of each image: the image, 25%% larger, and both mirrored (4 is not "
        "available for poses); N times as slow and more accurate (default: recommended by the adapter, else 1)",
    )
    _options.add_work_options(parser.add_argument_group("work"))


def task_run(options: Namespace, identity: "ModelIdentity", model: "PlaceableModel") -> "TaskRun":
    """Return the job of a command line. Open settings take the values that the adapters recommend."""
    from pipelines.readers.sources import ImageShards
    from pipelines.runs.task_run import TaskRun
    from pipelines.tasks.condition_columns import check_guidance, check_views
    from pipelines.tasks.estimation import Estimation

    sampling = sampling_of(options, identity.has_map_decoder).for_estimation(identity.recommended.steps)
    views = estimation_views(options, identity)
    for condition in identity.conditions:
        check_views(condition, views)
        check_guidance(condition, sampling)
    task = Estimation(
        conditions=identity.conditions,
        sampling=sampling,
        max_pixels=options.max_pixels,
        num_views=views,
        ensemble_size=options.ensemble,
    )
    return TaskRun(
        job=f"estimate_{'+'.join(task.names)}",
        task=task,
        source=ImageShards(columns=_cli.columns_of(options, options.image_column)),
        model=model,
        provenance=_cli.provenance(
            identity, options, sampling, _cli.ALWAYS_IN_ESTIMATES, CODE_VERSION,
            views=None if views == 1 else views, ensemble=options.ensemble,
        ),
        other_settings=_cli.data_settings(options, "image_column"),
        batch_size=options.batch_size,
        row_format=_cli.row_format_of(options),
        card=_card(task),
    )  # fmt: skip


def _card(task: "Estimation") -> "Card":
    from pipelines.dataset.card import KEY_TEXT, Card

    agreement = f"1 where the {task.ensemble_size} estimates agree, toward 0 where they differ"
    columns = {
        "`key`": KEY_TEXT,
        "`image`": "the original image file (JPEG, PNG, WebP); other formats are converted to PNG",
        **{f"`{condition.name}`": f"same size as the image: {condition.encoding}" for condition in task.conditions},
        **{f"`{column}`": agreement for column in task.confidences.values()},
    }
    kinds = {condition.name: condition.kind for condition in task.conditions}
    return Card(
        title=f"{' and '.join(task.names).capitalize()} maps",
        task="depth-estimation" if "depth" in kinds.values() else "image-to-image",
        columns=columns,
        previews={"image": "", **kinds},
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parse(arguments)
    return _cli.run_task(options, options.condition, task_run)


if __name__ == "__main__":
    _cli.finish(main)
