#!/usr/bin/env python3
"""Generate images that follow the conditions of a dataset: depth, edges, poses, or several at once."""

import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engines.spec import UNICON
from jobs import _cli, _engines, _options
from jobs._arguments import integer, number
from jobs._sampling import generation_sampling
from pipelines.errors import SettingError
from unicon.options import MAX_WEIGHT

if TYPE_CHECKING:
    from pipelines.dataset.card import Card
    from pipelines.readers.sources import Source
    from pipelines.runs.task_run import PlaceableModel, TaskRun
    from pipelines.tasks.engine_model import EngineIdentity
    from pipelines.tasks.model_identity import ModelIdentity
    from pipelines.tasks.synthesis import Synthesis

CODE_VERSION = "1"
"""Written to every row and part of the configuration hash. Increment it when equal settings produce different rows."""

EXAMPLES = """
examples:
  # new images with the depth of existing ones: outputs of estimate_depth.py have the columns key, depth and caption
  python jobs/synthesize.py --input depth/ --output new/ --condition depth=depth

  # four images per row, each with its own seed, under the keys KEY#0 to KEY#3
  python jobs/synthesize.py --input depth/ --output many/ --condition depth=depth --images-per-row 4 \\
      --prompt 'a room in winter' --guidance-scale 5

  # two conditions from tars with members KEY.depth.png, KEY.pose.png and KEY.txt; depth has a smaller weight
  python jobs/synthesize.py --input 's3://bucket/{000..099}.tar' --output s3://bucket/new \\
      --condition depth=depth.png --condition pose=pose.png --weight depth=0.6 \\
      --model /models/sd15 --adapter depth=/models/unicon/depth --adapter pose=/models/unicon/pose

  # from rough depth sketches: an image, and the refined depth in the column depth_refined
  python jobs/synthesize.py --input sketches.parquet --output new/ --condition depth=sketch --coarse 0.7

  # with a ControlNet of diffusers instead of UniCon
  python jobs/synthesize.py --input depth/ --output new/ --condition depth=depth --model /models/sd15 \\
      --engine controlnet:/models/control_v11f1p_sd15_depth --engine-option num_inference_steps=30

Run the same command again to continue after a crash or Ctrl-C, or to process files that were added since.

output:
  data/*.parquet     rows: key, image (PNG, same size as the condition), the given conditions, NAME_refined (with
                     --coarse), caption (the prompt), sizes, provenance
  errors/*.parquet   samples that failed, such as those that lack one of the conditions
  README.md, preview.png, report.html
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES + _cli.EXIT_CODES)
    data = parser.add_argument_group("data")
    _options.add_input_option(data, "tars or Parquet files, or folders of them")
    data.add_argument(
        "--condition",
        action="append",
        required=True,
        metavar="NAME=COLUMN",
        help="condition (the name of its adapter) and the Parquet column or tar extension of its map; repeatable. Maps "
        "of different sizes are resized to that of the first",
    )
    _options.add_data_options(data)
    _options.add_prompt_option(data)
    data.add_argument(
        "--images-per-row", type=integer(1, 1_000_000), default=1, metavar="N", help="images per row (default: 1)"
    )
    _engines.add_engine_options(parser.add_argument_group("engine"), makes_images=True)
    model = parser.add_argument_group("model")
    _options.add_generation_options(model)
    model.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="NAME=X",
        help="weight of a condition; 1 is the weight in training (default: 1); repeatable",
    )
    model.add_argument(
        "--coarse",
        type=number(0, 1),
        default=0.0,
        metavar="STRENGTH",
        help="how rough the conditions are, from 0 (exact) to 1 (useless); rough conditions are refined together with "
        "the image (default: 0; 0.7 is a good start)",
    )
    _options.add_work_options(parser.add_argument_group("work"), chunk_size=32)
    options = parser.parse_args(arguments)
    _engines.check_engine_options(parser, options, makes_images=True)
    return options


def weights_of(options: Namespace, conditions: "dict[str, str]") -> dict[str, float]:
    """Return the values of `--weight` by condition.

    Raises:
        SettingError: A value is not a number in range, or its condition is not given.
    """
    weights: dict[str, float] = {}
    for name, text in _cli.named_values("--weight", options.weight, "0.8").items():
        if name not in conditions:
            raise SettingError(
                f"--weight {name}={text}: --condition {name} is not given, only {', '.join(conditions)}."
            )
        try:
            weights[name] = number(-MAX_WEIGHT, MAX_WEIGHT)(text)
        except ArgumentTypeError as error:
            raise SettingError(f"--weight {name}={text}: {error}; 1 is the weight in training.") from None
    return weights


def task_run(options: Namespace, identity: "ModelIdentity", model: "PlaceableModel") -> "TaskRun":
    """Return the job of a command line."""
    task = _task(options, identity)
    made_by = _cli.generated_provenance(
        identity, options, task.sampling, CODE_VERSION, weights=_shown(task.weights), strength=options.coarse or None
    )
    return _task_run(options, task, model, made_by)


def engine_task_run(options: Namespace, identity: "EngineIdentity", model: "PlaceableModel") -> "TaskRun":
    """Return the job of a command line with an engine other than UniCon."""
    from pipelines.tasks.synthesis import Synthesis

    media = _cli.named_values("--condition", options.condition, "COLUMN")
    task = Synthesis(
        conditions=identity.conditions,
        prompt=options.prompt,
        media=media,
        max_pixels=options.max_pixels,
        weights=weights_of(options, media),
        negative_prompt=options.negative_prompt,
    )
    made_by = _engines.engine_provenance(
        identity, options, CODE_VERSION, weights=_shown(task.weights), negative_prompt=options.negative_prompt or None
    )
    return _task_run(options, task, model, made_by)


def _shown(weights: Mapping[str, float]) -> str | None:
    return ", ".join(f"{name}={weight:g}" for name, weight in weights.items()) or None


def _task_run(
    options: Namespace, task: "Synthesis", model: "PlaceableModel", made_by: Mapping[str, str | int | float]
) -> "TaskRun":
    from pipelines.runs.task_run import TaskRun

    return TaskRun(
        job="synthesize",
        task=task,
        source=_source(options, dict(task.media)),
        model=model,
        provenance=made_by,
        other_settings={
            "conditions": dict(task.media),
            **_cli.data_settings(options, "prompt", "images_per_row"),
        },
        batch_size=options.batch_size,
        row_format=_cli.row_format_of(options),
        card=_card(options, task),
    )


def _task(options: Namespace, identity: "ModelIdentity") -> "Synthesis":
    from pipelines.tasks.synthesis import Synthesis

    media = _cli.named_values("--condition", options.condition, "COLUMN")
    weights = weights_of(options, media)
    sampling = generation_sampling(options)
    if options.coarse and options.given_at:
        raise SettingError(
            f"--given-at applies to exact conditions only; with --coarse {options.coarse:g} they start at an "
            "intermediate noise level. Remove one of the options."
        )
    if options.coarse and sampling.one_way:
        raise SettingError(
            f"--one-way applies to exact conditions only; with --coarse {options.coarse:g} they change together with "
            "the image. Remove one of the options."
        )
    if options.coarse:
        sampling = replace(sampling, given_at="clean")
    return Synthesis(
        conditions=identity.conditions,
        prompt=options.prompt,
        media=media,
        max_pixels=options.max_pixels,
        strength=options.coarse,
        sampling=sampling,
        weights=weights,
        negative_prompt=options.negative_prompt,
    )


def _source(options: Namespace, media: dict[str, str]) -> "Source":
    from pipelines.readers.sources import ImageShards, Repeated

    names = tuple(dict.fromkeys(media.values()))
    source = ImageShards(
        columns=_cli.columns_of(options, names[0], names),
        media_options={column: f"--condition {name}={column}" for name, column in media.items()},
    )
    if options.images_per_row == 1:
        return source
    return Repeated(source=source, copies=options.images_per_row, option="--images-per-row")


def _card(options: Namespace, task: "Synthesis") -> "Card":
    from pipelines.dataset.card import KEY_TEXT, Card
    from pipelines.stages.task import TOKENS_CUT
    from pipelines.tasks.generation import TOKENS_CUT_TEXT
    from pipelines.tasks.synthesis import REFINED

    copies = "" if options.images_per_row == 1 else "; images of one row end in #0, #1, ..."
    columns = {"`key`": KEY_TEXT + copies, "`image`": "the generated image, PNG"}
    previews = {"image": ""}
    for condition in task.conditions:
        columns[f"`{condition.name}`"] = f"the given condition, unchanged ({condition.encoding})"
        previews[condition.name] = condition.kind
        if options.coarse:
            columns[f"`{condition.name}{REFINED}`"] = f"the condition as refined by the model: {condition.encoding}"
            previews[f"{condition.name}{REFINED}"] = condition.kind
    columns[f"`{TOKENS_CUT}`"] = TOKENS_CUT_TEXT
    columns["`caption`"] = "the prompt"
    if options.images_per_row > 1:
        columns["`shard`, `position`"] = (
            f"source of the condition; the position is {options.images_per_row} x its position in the shard + the "
            "image's number"
        )
    return Card(title="Images by condition", task="text-to-image", columns=columns, previews=previews)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parse(arguments)
    conditions = list(_cli.named_values("--condition", options.condition, "COLUMN"))
    if options.engine == UNICON:
        return _cli.run_task(options, conditions, task_run)
    if len(conditions) > 1:
        raise SettingError(f"--engine {options.engine} follows one condition; got {', '.join(conditions)}. Name one.")
    if options.negative_prompt and _engines.engine_of(options).options.get("guidance_scale") == 1:
        raise SettingError(
            f"--negative-prompt {options.negative_prompt[:60]!r} needs text guidance, which guidance_scale=1 switches "
            "off. Remove one of them."
        )
    return _engines.run_engine(options, conditions[0], engine_task_run)


if __name__ == "__main__":
    _cli.finish(main)
