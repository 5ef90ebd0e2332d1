#!/usr/bin/env python3
"""Estimate conditions (depth, edge, pose, ...) for every image of a dataset, on all available GPUs."""

import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engines.spec import UNICON
from jobs import _cli, _engines, _options
from jobs._arguments import integer
from jobs._presets import estimation_views
from jobs._sampling import ESTIMATION_DEFAULTS, sampling_of
from pipelines.errors import SettingError

if TYPE_CHECKING:
    from pipelines.dataset.card import Card
    from pipelines.runs.task_run import PlaceableModel, TaskRun
    from pipelines.tasks.engine_model import EngineIdentity
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

  # with other models: Canny edges in the column canny; depth by a transformers model
  python jobs/estimate.py --input photos/ --output canny/ --engine controlnet-aux:canny
  python jobs/estimate.py --input photos/ --output depth/ --engine transformers:/models/depth-anything-v2-large

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
        metavar="NAME",
        help="conditions to estimate: the names of their adapters and of the output columns. Several are estimated "
        "together; those with the same steps and views share one pass of the model (default: depth; with another "
        "engine, what it estimates)",
    )
    _engines.add_engine_options(parser.add_argument_group("engine"), makes_images=False)
    add_options(parser)
    options = parser.parse_args(arguments)
    _engines.check_engine_options(parser, options, makes_images=False)
    default = ["depth"] if options.engine == UNICON else []
    options.condition = list(dict.fromkeys(options.condition or default))
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
    _options.add_view_option(model)
    _options.add_work_options(parser.add_argument_group("work"))


def task_run(options: Namespace, identity: "ModelIdentity", model: "PlaceableModel") -> "TaskRun":
    """Return the job of a command line. Open settings take the values that the adapters recommend."""
    task, steps_and_views = _task(options, identity)
    always = [name for name in _cli.ALWAYS_IN_ESTIMATES if getattr(task.sampling, name) is not None]
    made_by = _cli.provenance(
        identity, options, task.sampling, always, CODE_VERSION, **steps_and_views, ensemble=options.ensemble
    )
    return _task_run(options, task, model, made_by)


def engine_task_run(options: Namespace, identity: "EngineIdentity", model: "PlaceableModel") -> "TaskRun":
    """Return the job of a command line with an engine other than UniCon."""
    from pipelines.tasks.estimation import TRANSPORT_AREA_PX, Estimation

    task = Estimation(
        conditions=identity.conditions,
        max_pixels=options.max_pixels,
        transport_area_px=max(TRANSPORT_AREA_PX, identity.area_px),
    )
    return _task_run(options, task, model, _engines.engine_provenance(identity, options, CODE_VERSION))


def _task_run(
    options: Namespace, task: "Estimation", model: "PlaceableModel", made_by: Mapping[str, str | int | float]
) -> "TaskRun":
    from pipelines.readers.sources import ImageShards
    from pipelines.runs.task_run import TaskRun

    return TaskRun(
        job=f"estimate_{'+'.join(task.names)}",
        task=task,
        source=ImageShards(columns=_cli.columns_of(options, options.image_column)),
        model=model,
        provenance=made_by,
        other_settings=_cli.data_settings(options, "image_column"),
        batch_size=options.batch_size,
        row_format=_cli.row_format_of(options),
        card=_card(task),
    )


def _task(options: Namespace, identity: "ModelIdentity") -> tuple["Estimation", dict[str, int | None]]:
    """Return the task, and the columns of steps and views: one for each condition where the conditions differ."""
    from pipelines.tasks.condition_columns import check_guidance, check_views
    from pipelines.tasks.estimation import Estimation

    given = sampling_of(options, identity.has_map_decoder)
    samplings = {name: given.for_estimation(each.steps) for name, each in identity.recommended.items()}
    views = estimation_views(options, identity)
    for condition in identity.conditions:
        check_views(condition, views[condition.name])
        check_guidance(condition, samplings[condition.name])
    sampling, num_views = next(iter(samplings.values())), next(iter(views.values()))
    columns: dict[str, int | None] = {"views": None if num_views == 1 else num_views}
    if len({*views.values()}) > 1:
        num_views, columns = None, {}
        columns |= {f"{name}_views": count for name, count in views.items()}
    if len({*samplings.values()}) > 1:
        columns |= {f"{name}_num_inference_steps": each.steps for name, each in samplings.items()}
        sampling = replace(sampling, num_inference_steps=None)
    task = Estimation(
        conditions=identity.conditions,
        sampling=sampling,
        max_pixels=options.max_pixels,
        num_views=num_views,
        ensemble_size=options.ensemble,
    )
    return task, columns


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
    if options.engine == UNICON:
        return _cli.run_task(options, options.condition, task_run)
    if len(options.condition) > 1:
        raise SettingError(
            f"--engine {options.engine} estimates one condition; got --condition {' '.join(options.condition)}. Name "
            "one, or leave it out for its usual name."
        )
    return _engines.run_engine(options, next(iter(options.condition), None), engine_task_run)


if __name__ == "__main__":
    _cli.finish(main)
