#!/usr/bin/env python3
"""Repaint the masked part of every image according to its caption, optionally together with conditions."""

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli, _options
from jobs._sampling import generation_sampling
from pipelines.errors import SettingError

if TYPE_CHECKING:
    from pipelines.dataset.card import Card
    from pipelines.runs.task_run import PlaceableModel, TaskRun
    from pipelines.tasks.model_identity import ModelIdentity

CODE_VERSION = "1"
"""Written to every row and part of the configuration hash. Increment it when equal settings produce different rows."""

EXAMPLES = """
examples:
  # tars with members KEY.jpg, KEY.mask.png (white: repaint, black: keep) and KEY.txt (the prompt)
  python jobs/inpaint.py --input shards/ --output painted/ --mask-column mask.png

  # a Parquet dataset, with one prompt for all images, and the depth of the new images
  python jobs/inpaint.py --input data/*.parquet --output painted/ --image-column image --mask-column mask \\
      --prompt 'a red chair' --condition depth

Run the same command again to continue after a crash or Ctrl-C, or to process files that were added since.

output:
  data/*.parquet     rows: key, image (PNG; unchanged outside the mask), original, mask, conditions, caption (the
                     prompt), sizes, provenance
  errors/*.parquet   samples that failed, such as those without a mask or with a mask of another size
  README.md, preview.png, report.html
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES + _cli.EXIT_CODES)
    data = parser.add_argument_group("data")
    _options.add_input_option(data, "tars or Parquet files, or folders of them")
    _options.add_image_column_option(data)
    data.add_argument(
        "--mask-column",
        required=True,
        metavar="NAME",
        help="Parquet column or tar extension of the mask: white is repainted, black is kept, gray is blended",
    )
    _options.add_data_options(data)
    _options.add_prompt_option(data)
    model = parser.add_argument_group("model")
    _options.add_generation_options(model, leave_out=["given_at", "one_way"])
    model.add_argument(
        "--condition",
        action="append",
        default=[],
        metavar="NAME",
        help="condition to generate with the image: the name of the adapter and of the output column; repeatable",
    )
    _options.add_work_options(parser.add_argument_group("work"), chunk_size=32)
    return parser.parse_args(arguments)


def task_run(options: Namespace, identity: "ModelIdentity", model: "PlaceableModel") -> "TaskRun":
    """Return the job of a command line."""
    from pipelines.readers.sources import ImageShards
    from pipelines.runs.task_run import TaskRun
    from pipelines.tasks.inpainting import Inpainting

    columns = _cli.columns_of(options, options.image_column, [options.mask_column])
    sampling = generation_sampling(options)
    if not options.condition:
        if sampling.condition_guidance_scale:
            raise SettingError(
                f"--condition-guidance-scale {sampling.condition_guidance_scale:g} needs a --condition to guide "
                "toward, and none is given. Remove it, or add a --condition."
            )
        sampling = replace(sampling, given_at="clean")
    return TaskRun(
        job="inpaint",
        task=Inpainting(
            conditions=identity.conditions,
            prompt=options.prompt,
            mask=options.mask_column,
            max_pixels=options.max_pixels,
            sampling=sampling,
            negative_prompt=options.negative_prompt,
        ),
        source=ImageShards(
            columns=columns, media_options={options.mask_column: f"--mask-column {options.mask_column}"}
        ),
        model=model,
        provenance=_cli.generated_provenance(identity, options, sampling, CODE_VERSION),
        other_settings=_cli.data_settings(options, "condition", "prompt", "mask_column", "image_column"),
        batch_size=options.batch_size,
        row_format=_cli.row_format_of(options),
        card=_card(identity),
    )


def _card(identity: "ModelIdentity") -> "Card":
    from pipelines.dataset.card import KEY_TEXT, Card
    from pipelines.stages.task import TOKENS_CUT
    from pipelines.tasks.generation import TOKENS_CUT_TEXT

    columns = {
        "`key`": KEY_TEXT,
        "`image`": "the repainted image, PNG; equal to the original outside the mask",
        "`original`, `mask`": "the given files, unchanged; the mask is white where the image was repainted",
        **{
            f"`{condition.name}`": f"condition of the new image: {condition.encoding}"
            for condition in identity.conditions
        },
        f"`{TOKENS_CUT}`": TOKENS_CUT_TEXT,
        "`caption`": "the prompt",
    }
    previews = {
        **dict.fromkeys(("original", "mask", "image"), ""),
        **{condition.name: condition.kind for condition in identity.conditions},
    }
    return Card(title="Inpainted images", task="image-to-image", columns=columns, previews=previews)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parse(arguments)
    options.condition = list(dict.fromkeys(options.condition))
    return _cli.run_task(options, options.condition, task_run)


if __name__ == "__main__":
    _cli.finish(main)
