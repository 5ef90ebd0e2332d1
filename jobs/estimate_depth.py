#!/usr/bin/env python3
"""Estimate the depth of every picture of a collection, on as many GPUs as there are."""

import os
import sys
from argparse import Namespace, _ArgumentGroup
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli
from pipelines import runner, storage
from pipelines.card import card_text, write_preview
from pipelines.depth import EstimateDepth, PredictorDescription, PublishDepth, ReadPictures
from pipelines.predictors import ModelIdentity, UniConDepth, identify_model
from pipelines.samples import Columns

if TYPE_CHECKING:
    from pipelines.flow import Flow, Resources

CODE_VERSION = "1"
"""Part of every row and of the configuration hash: raise it when the same settings give other rows."""

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
  README.md, preview.png

exit codes:
  0 done   1 some chunks are not finished   2 a wrong setting   3 more failures than --max-error-rate
  130, 143 interrupted; the same command goes on

S3 and other stores: credentials and endpoints come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL, FSSPEC_S3_ANON=true for public buckets).
"""

COLUMN_TEXT = """
| column | content |
|---|---|
| `key` | name of the sample: WebDataset key, Parquet key column, or path in the folder; unique within its `shard` |
| `image` | the picture as it came (JPEG, PNG, WebP), others as PNG |
| `depth` | 16-bit PNG of the picture's size: relative inverse depth, 0 = far, 65535 = near; every row has its scale |
| `caption` | text that came with the sample |
| `width`, `height` | pixels, after the EXIF rotation |
| `shard`, `position` | where the sample came from |
| `model`, `weights_sha256`, `adapter`, `seed`, `num_inference_steps`, `guidance_scale`, `code_version` | what made it |
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES)
    _add_data_options(parser.add_argument_group("data"))
    _add_model_options(parser.add_argument_group("model"))
    _add_work_options(parser.add_argument_group("work"))
    return parser.parse_args(arguments)


def _add_data_options(data: _ArgumentGroup) -> None:
    data.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="URI",
        help="tars, Parquet files, folders of pictures; globs and {000..099}; local or s3://, gs://, ...",
    )
    data.add_argument("--output", required=True, metavar="URI", help="folder or object store prefix for the result")
    data.add_argument(
        "--image-column",
        metavar="NAME",
        help="Parquet column or tar extension of the picture (default: image, or the only candidate)",
    )
    data.add_argument(
        "--key-column", metavar="NAME", help="Parquet column of unique names (default: key, __key__, or the row number)"
    )
    data.add_argument(
        "--caption-column",
        metavar="NAME",
        help="Parquet column, tar extension or JSON field (default: caption, text, prompt, or .txt)",
    )
    data.add_argument("--limit", type=_cli.whole(1), metavar="N", help="only the first N samples")
    data.add_argument(
        "--max-pixels",
        type=_cli.whole(1),
        default=100_000_000,
        metavar="N",
        help="larger pictures become error rows (default: %(default)s)",
    )


def _add_model_options(model: _ArgumentGroup) -> None:
    model.add_argument(
        "--model",
        default="mini",
        metavar="NAME",
        help="mini (ships with the project), a Stable Diffusion folder, or a hub id (default: %(default)s)",
    )
    model.add_argument("--adapter", metavar="PATH", help="UniCon depth adapter (default: the one in the model folder)")
    model.add_argument(
        "--steps", type=_cli.whole(1), metavar="N", help="sampling steps (default: what the adapter recommends)"
    )
    model.add_argument(
        "--guidance-scale",
        type=_cli.number(0),
        default=1.0,
        metavar="X",
        help="text guidance; 1 is none and twice as fast (default: %(default)s)",
    )
    model.add_argument(
        "--seed",
        type=_cli.whole(0),
        default=0,
        metavar="N",
        help="run seed; a row's seed depends on it and the row's key alone (default: %(default)s)",
    )


def _add_work_options(work: _ArgumentGroup) -> None:
    work.add_argument(
        "--chunk-size",
        type=_cli.whole(1),
        default=64,
        metavar="N",
        help="samples in one output file, and in one unit of resume (default: %(default)s)",
    )
    work.add_argument(
        "--batch-size",
        type=_cli.whole(1),
        default=8,
        metavar="N",
        help="pictures at once on a device; halved where memory is short (default: %(default)s)",
    )
    work.add_argument("--actors", type=_cli.whole(1), metavar="N", help="model copies (default: one a GPU, else one)")
    work.add_argument(
        "--num-gpus-per-actor",
        type=_cli.number(0),
        metavar="X",
        help="GPUs, or a share of one, for each actor (default: 1 where there are GPUs, else 0)",
    )
    work.add_argument(
        "--retry-errors",
        action="store_true",
        help="do the failed samples of earlier runs again, and nothing that succeeded",
    )
    work.add_argument(
        "--max-error-rate",
        type=_cli.number(0, 1),
        default=1.0,
        metavar="X",
        help="share of failed samples above which the exit code is 3 (default: %(default)s)",
    )


def describe_predictor(options: Namespace, resources: "Resources") -> UniConDepth:
    """The model of a command line, as the description that travels to the actors."""
    return UniConDepth(
        model=os.path.abspath(options.model) if os.path.isdir(options.model) else options.model,
        adapter=None if options.adapter is None else os.path.abspath(options.adapter),
        num_inference_steps=options.steps,
        guidance_scale=options.guidance_scale,
        device=None if resources.gpus_per_actor else "cpu",
        cpu_threads=max(1, (os.cpu_count() or 1) // resources.actors),
    )


def make_job(
    options: Namespace,
    identity: ModelIdentity,
    describe: "Callable[[Namespace, Resources], PredictorDescription]" = describe_predictor,
) -> runner.Job:
    """The job of a command line; what it leaves open is as the adapter recommends."""
    options = Namespace(**{**vars(options), "steps": options.steps or identity.num_inference_steps})
    provenance = {
        "model": identity.model,
        "weights_sha256": identity.weights_sha256,
        "adapter": identity.adapter,
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "code_version": CODE_VERSION,
    }
    settings = {
        "job": "estimate_depth",
        **provenance,
        "seed": options.seed,
        "max_pixels": options.max_pixels,
        "image_column": options.image_column,
        "key_column": options.key_column,
        "caption_column": options.caption_column,
    }

    def make_flow(output: str, resources: "Resources") -> "Flow":
        from pipelines.flow import Flow

        return Flow(
            read=ReadPictures(columns=columns_of(options), max_pixels=options.max_pixels),
            model=EstimateDepth(
                predictor=describe(options, resources), run_seed=options.seed, batch_size=options.batch_size
            ),
            publish=PublishDepth(output=output, provenance=provenance, run_seed=options.seed),
        )

    def finish(output: str, outcome: runner.Outcome) -> None:
        from unicon.conditions import CONDITIONS

        write_preview(output, "depth", CONDITIONS["depth"].preview)
        card = card_text("Depth maps", "depth-estimation", settings, COLUMN_TEXT, outcome.ok, outcome.bad)
        storage.publish(storage.join(output, "README.md"), card.encode())

    return runner.Job(name="estimate_depth", settings=settings, make_flow=make_flow, finish=finish)


def columns_of(options: Namespace) -> Columns:
    """The column options."""
    return Columns(image=options.image_column, key=options.key_column, caption=options.caption_column)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    identity = identify_model(options.model, options.adapter)
    return runner.run_job(make_job(options, identity), request_of(options))


def request_of(options: Namespace) -> runner.Request:
    """What the runner needs of a command line."""
    return runner.Request(
        inputs=options.input,
        output=options.output,
        columns=columns_of(options),
        chunk_size=options.chunk_size,
        limit=options.limit,
        retry_errors=options.retry_errors,
        max_error_rate=options.max_error_rate,
        actors=options.actors,
        gpus_per_actor=options.num_gpus_per_actor,
    )


if __name__ == "__main__":
    _cli.finish(main)
