#!/usr/bin/env python3
"""Generate images together with their conditions (depth, edges, poses) from prompts alone."""

import sys
from argparse import Namespace, _ArgumentGroup
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli, _options
from jobs._arguments import integer, location, size
from jobs._sampling import generation_sampling

if TYPE_CHECKING:
    from pipelines.dataset.card import Card
    from pipelines.runs.task_run import PlaceableModel, TaskRun
    from pipelines.tasks.model_identity import ModelIdentity

CODE_VERSION = "1"
"""Written to every row and part of the configuration hash. Increment it when equal settings produce different rows."""

EXAMPLES = """
examples:
  # ten images with depth for each line of a text file
  python jobs/generate_pairs.py --prompts prompts.txt --output pairs/ --pairs-per-prompt 10

  # image, depth and edges together, 768 x 512 pixels, with your own adapters
  python jobs/generate_pairs.py --prompts prompts.jsonl --output pairs/ --condition depth --condition edge \\
      --size 768x512 --model /models/sd15 --adapter depth=/models/unicon/depth --adapter edge=/models/unicon/edge

  # the captions of a dataset on S3, on the GPUs of a Ray cluster
  ray job submit --working-dir . -- python jobs/generate_pairs.py --prompts 's3://bucket/depth/data/*.parquet' \\
      --prompt-column caption --output s3://bucket/pairs --pairs-per-prompt 4 --model /models/sd15-unicon

Run the same command again to continue after a crash or Ctrl-C, or to process files that were added since.

prompt files: .txt (one prompt per line), .jsonl (field prompt, caption or text, or --prompt-column), .parquet

output:
  data/*.parquet     rows: key (prompt file and number; KEY#0, KEY#1, ... with several pairs per prompt), image (PNG),
                     the conditions (depth: 16-bit PNG; edge: 8-bit; pose: RGB), caption (the prompt), sizes,
                     provenance
  errors/*.parquet   prompts that failed: key, file, position, stage, reason
  README.md, preview.png, report.html
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES + _cli.EXIT_CODES)
    _add_data_options(parser.add_argument_group("data"))
    _options.add_generation_options(parser.add_argument_group("model"), leave_out=["given_at", "one_way"])
    _options.add_work_options(parser.add_argument_group("work"), chunk_size=32)
    options = parser.parse_args(arguments)
    options.condition = list(dict.fromkeys(options.condition or ["depth"]))
    return options


def _add_data_options(data: _ArgumentGroup) -> None:
    data.add_argument(
        "--prompts",
        dest="input",
        type=location,
        nargs="+",
        required=True,
        metavar="URI",
        help="prompt files, or folders of them; local or s3://, gs://, ...; globs and {000..099} ranges are expanded",
    )
    _options.add_output_option(data)
    data.add_argument(
        "--prompt-column",
        metavar="NAME",
        help="Parquet column or JSON field of the prompt (default: prompt, caption or text)",
    )
    _options.add_key_column_option(data)
    _options.add_limit_options(data, "prompts")
    data.add_argument(
        "--condition",
        action="append",
        metavar="NAME",
        help="condition to generate with the image: the name of the adapter and of the output column; repeatable "
        "(default: depth)",
    )
    data.add_argument(
        "--pairs-per-prompt",
        type=integer(1, 1_000_000),
        default=1,
        metavar="N",
        help="pairs per prompt, each with its own seed (default: 1)",
    )
    data.add_argument(
        "--size",
        type=size,
        metavar="WxH",
        help="size of the images in pixels (default: native resolution of the model)",
    )


def task_run(options: Namespace, identity: "ModelIdentity", model: "PlaceableModel") -> "TaskRun":
    """Return the job of a command line."""
    from pipelines.readers.prompts import PromptFiles
    from pipelines.readers.sources import Repeated
    from pipelines.runs.task_run import TaskRun
    from pipelines.tasks.pair_generation import PairGeneration

    prompts = PromptFiles(column=options.prompt_column, key=options.key_column)
    copies, sampling = options.pairs_per_prompt, replace(generation_sampling(options), given_at="clean")
    size = None if options.size is None else f"{options.size[0]}x{options.size[1]}"
    return TaskRun(
        job="generate_pairs",
        task=PairGeneration(
            conditions=identity.conditions, size_px=options.size, sampling=sampling,
            negative_prompt=options.negative_prompt,
        ),
        source=prompts if copies == 1 else Repeated(source=prompts, copies=copies, option="--pairs-per-prompt"),
        model=model,
        provenance=_cli.generated_provenance(identity, options, sampling, CODE_VERSION),
        other_settings={
            "conditions": options.condition,
            "size": size,
            "pairs_per_prompt": copies,
            "prompt_column": options.prompt_column,
            "key_column": options.key_column,
        },
        batch_size=options.batch_size,
        row_format=_cli.row_format_of(options),
        card=_card(options, identity),
    )  # fmt: skip


def _card(options: Namespace, identity: "ModelIdentity") -> "Card":
    from pipelines.dataset.card import Card
    from pipelines.stages.task import TOKENS_CUT
    from pipelines.tasks.generation import TOKENS_CUT_TEXT

    names = " and ".join(options.condition)
    many = options.pairs_per_prompt > 1
    columns = {
        "`key`": "key column of the prompts, or file name and number" + ("; pairs end in #0, #1, ..." if many else ""),
        "`image`": "the generated image, PNG",
        **{
            f"`{condition.name}`": f"generated with the image: {condition.encoding}"
            for condition in identity.conditions
        },
        f"`{TOKENS_CUT}`": TOKENS_CUT_TEXT,
        "`caption`": "the prompt",
        "`width`, `height`": "pixels",
        "`shard`, `position`": "file of the prompt, and "
        + (f"{options.pairs_per_prompt} x its number there + the pair's number" if many else "its number there"),
    }
    previews = {"image": "", **{condition.name: condition.kind for condition in identity.conditions}}
    return Card(title=f"Images with {names}", task="text-to-image", columns=columns, previews=previews)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parse(arguments)
    return _cli.run_task(options, options.condition, task_run)


if __name__ == "__main__":
    _cli.finish(main)
