#!/usr/bin/env python3
"""Make pictures together with their conditions (depth, edges, poses) from prompts alone: labelled data from nothing."""

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli, _options
from jobs._arguments import place, size, whole
from jobs._sampling import generation_sampling

if TYPE_CHECKING:
    from pipelines.dataset.card import Card
    from pipelines.runs.task_run import PlaceableModel, TaskRun
    from pipelines.tasks.model import ModelIdentity

CODE_VERSION = "1"
"""Part of every row and of the configuration hash: raise it when the same settings give other rows."""

EXAMPLES = """
examples:
  # ten pictures with depth for each line of a text file
  python jobs/generate_pairs.py --prompts prompts.txt --output pairs/ --pairs-per-prompt 10

  # picture, depth and edges together, 768 x 512, with adapters of one's own
  python jobs/generate_pairs.py --prompts prompts.jsonl --output pairs/ --condition depth --condition edge \\
      --size 768x512 --model /models/sd15 --adapter depth=/models/unicon/depth --adapter edge=/models/unicon/edge

  # the captions of a dataset on S3, on the GPUs of a cluster
  ray job submit --working-dir . -- python jobs/generate_pairs.py --prompts 's3://bucket/depth/data/*.parquet' \\
      --prompt-column caption --output s3://bucket/pairs --pairs-per-prompt 4 --model /models/sd15-unicon

The same command again does what is left: after a crash, after a Ctrl-C, or the next night when files have been added.

prompts: .txt (a prompt a line), .jsonl (fields prompt, caption or text; --prompt-column names another), .parquet

output:
  data/*.parquet     rows: key (prompt file and number; KEY#0, KEY#1, ... with several pairs a prompt), image (PNG), the
                     conditions (depth: 16-bit PNG; edge: 8-bit; pose: RGB), caption (the prompt), sizes, provenance
  errors/*.parquet   prompts that could not be used: key, file, position, stage, reason
  README.md, preview.png, report.html
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES + _cli.EXIT_CODES)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--prompts",
        dest="input",
        type=place,
        nargs="+",
        required=True,
        metavar="URI",
        help="files of prompts, or folders of them; globs and {000..099}; local or s3://, gs://, ...",
    )
    _options.add_output_option(data)
    data.add_argument(
        "--prompt-column", metavar="NAME", help="Parquet column or JSON field (default: prompt, caption or text)"
    )
    _options.add_key_column_option(data)
    _options.add_limit_options(data, "prompts")
    data.add_argument(
        "--condition",
        action="append",
        metavar="NAME",
        help="what is made beside the picture: the name of an adapter, and of the column; repeatable (default: depth)",
    )
    data.add_argument(
        "--pairs-per-prompt",
        type=whole(1, 1_000_000),
        default=1,
        metavar="N",
        help="each with its own seed (default: 1)",
    )
    data.add_argument(
        "--size",
        type=size,
        metavar="WxH",
        help="of the pictures, in pixels (default: what the model was made for)",
    )
    _options.add_generation_options(parser.add_argument_group("model"), leave_out=["given_at"])
    _options.add_work_options(parser.add_argument_group("work"), chunk_size=32)
    options = parser.parse_args(arguments)
    options.condition = list(dict.fromkeys(options.condition or ["depth"]))
    return options


def task_run(options: Namespace, identity: "ModelIdentity", model: "PlaceableModel") -> "TaskRun":
    """The job of a command line."""
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
        "`image`": "the picture, PNG",
        **{f"`{condition.name}`": f"made with the picture: {condition.encoding}" for condition in identity.conditions},
        f"`{TOKENS_CUT}`": TOKENS_CUT_TEXT,
        "`caption`": "the prompt",
        "`width`, `height`": "pixels",
        "`shard`, `position`": "file of the prompt, and "
        + (f"{options.pairs_per_prompt} x its number there + the pair's number" if many else "its number there"),
    }
    previews = {"image": "", **{condition.name: condition.kind for condition in identity.conditions}}
    return Card(title=f"Pictures with {names}", task="text-to-image", columns=columns, previews=previews)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    return _cli.run_task(options, options.condition, task_run)


if __name__ == "__main__":
    _cli.finish(main)
