#!/usr/bin/env python3
"""Estimate a condition (depth, edge, pose, ...) of every picture of a collection, on as many GPUs as there are."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli, _options
from jobs._arguments import whole
from jobs._sampling import ESTIMATION_DEFAULTS, sampling_of

if TYPE_CHECKING:
    from pipelines.dataset.card import Card
    from pipelines.runs.task_run import PlaceableModel, TaskRun
    from pipelines.tasks.condition_columns import ConditionColumn
    from pipelines.tasks.model import ModelIdentity

CODE_VERSION = "1"
"""Part of every row and of the configuration hash: raise it when the same settings give other rows."""

EXAMPLES = """
examples:
  # edges of a folder of pictures, with an adapter of one's own
  python jobs/estimate.py --condition edge --input photos/ --output edges/ --adapter adapters/edge.safetensors

  # poses, on the GPUs of a cluster
  ray job submit --working-dir . -- python jobs/estimate.py --condition pose \\
      --input 's3://bucket/shards/{00000..00099}.tar' --output s3://bucket/poses \\
      --model /models/stable-diffusion-v1-5 --adapter /models/unicon/pose --steps 20

  # depth as the median of five estimates, and how far they agree; then a second condition of the same pictures
  python jobs/estimate.py --input photos/ --output depth/ --ensemble 5
  python jobs/estimate.py --input depth/ --output depth-pose/ --condition pose --model /models/with-pose

The same command again does what is left: after a crash, after a Ctrl-C, or the next night when files have been added.

output:
  data/*.parquet     rows: key, image, CONDITION (depth: 16-bit PNG; edge: 8-bit; pose: RGB), confidence (with
                     --ensemble), caption, sizes, provenance
  errors/*.parquet   samples that could not be processed: key, shard, position, stage, reason
  README.md, preview.png, report.html
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES + _cli.EXIT_CODES)
    parser.add_argument(
        "--condition",
        default="depth",
        metavar="NAME",
        help="what to estimate: the name of an adapter, and of the column (default: %(default)s)",
    )
    add_options(parser)
    return parser.parse_args(arguments)


def add_options(parser: _cli.Parser) -> None:
    """Everything but the condition."""
    data = parser.add_argument_group("data")
    _options.add_input_option(data)
    _options.add_image_column_option(data)
    _options.add_data_options(data)
    model = parser.add_argument_group("model")
    _options.add_model_options(model, ESTIMATION_DEFAULTS)
    model.add_argument(
        "--ensemble",
        type=whole(2, 100),
        metavar="K",
        help="median of K estimates, K times as slow; adds a column confidence, 1 where they agree (default: off)",
    )
    model.add_argument(
        "--views",
        type=int,
        choices=(1, 2, 4),
        metavar="N",
        help="mean of 1, 2 or 4 estimates of each picture: as it is, larger by a quarter, and both mirrored (4 not for "
        "poses); N times as slow and nearer to the truth (default: what the adapter recommends, else 1)",
    )
    _options.add_work_options(parser.add_argument_group("work"))


def task_run(options: Namespace, identity: "ModelIdentity", model: "PlaceableModel") -> "TaskRun":
    """The job of a command line; what it leaves open is as the adapter recommends."""
    from pipelines.readers.sources import PictureShards
    from pipelines.runs.task_run import TaskRun
    from pipelines.tasks.condition_columns import check_guidance, check_views
    from pipelines.tasks.estimation import Estimation

    (condition,) = identity.conditions
    sampling = sampling_of(options).for_estimation(identity.recommended.steps)
    views = options.views or identity.recommended.views
    check_views(condition, views)
    check_guidance(condition, sampling)
    return TaskRun(
        job=f"estimate_{condition.name}",
        task=Estimation(
            condition=condition,
            sampling=sampling,
            max_pixels=options.max_pixels,
            views=views,
            ensemble=options.ensemble,
        ),
        source=PictureShards(columns=_cli.columns_of(options, options.image_column)),
        model=model,
        provenance=_cli.provenance(
            identity, options, sampling, _cli.ALWAYS_IN_ESTIMATES, CODE_VERSION,
            views=None if views == 1 else views, ensemble=options.ensemble,
        ),
        other_settings=_cli.data_settings(options, "image_column"),
        batch_size=options.batch_size,
        row_format=_cli.row_format_of(options),
        card=_card(options, condition),
    )  # fmt: skip


def _card(options: Namespace, condition: "ConditionColumn") -> "Card":
    from pipelines.dataset.card import KEY_TEXT, Card
    from pipelines.tasks.estimation import CONFIDENCE

    columns = {
        "`key`": KEY_TEXT,
        "`image`": "the picture as it came (JPEG, PNG, WebP), others as PNG",
        f"`{condition.name}`": f"of the picture's size: {condition.encoding}",
    }
    if options.ensemble:
        columns[f"`{CONFIDENCE}`"] = f"1 where the {options.ensemble} estimates agree, towards 0 where they do not"
    return Card(
        title=f"{condition.name.capitalize()} maps",
        task="depth-estimation" if condition.kind == "depth" else "image-to-image",
        columns=columns,
        previews={"image": "", condition.name: condition.kind},
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    return _cli.run_task(options, [options.condition], task_run)


if __name__ == "__main__":
    _cli.finish(main)
