"""The options that the chunked jobs share, in groups; what they mean is read in `jobs._cli`."""

from argparse import _ArgumentGroup

from jobs._arguments import actor_range, moment, number, whole

OUTPUT_FORMATS = ("parquet", "webdataset")
SAMPLERS = ("ddim", "euler", "euler_ancestral", "dpmsolver++")


def add_input_option(data: _ArgumentGroup, what: str = "tars, Parquet files, folders of pictures") -> None:
    """`--input`."""
    data.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="URI",
        help=f"{what}; globs and {{000..099}}; local or s3://, gs://, ...",
    )


def add_image_column_option(data: _ArgumentGroup) -> None:
    """`--image-column`."""
    data.add_argument(
        "--image-column",
        metavar="NAME",
        help="Parquet column or tar extension of the picture (default: image, or the only candidate)",
    )


def add_output_option(data: _ArgumentGroup) -> None:
    """`--output`, `--output-format`."""
    data.add_argument("--output", required=True, metavar="URI", help="folder or object store prefix for the result")
    data.add_argument(
        "--output-format",
        choices=OUTPUT_FORMATS,
        default="parquet",
        metavar="NAME",
        help="of the files in data/: parquet, or webdataset (tars of KEY.jpg, KEY.CONDITION.png, KEY.json); an output "
        "has one format (default: %(default)s)",
    )


def add_key_column_option(data: _ArgumentGroup) -> None:
    """`--key-column`."""
    data.add_argument(
        "--key-column", metavar="NAME", help="Parquet column of unique names (default: key, __key__, or the row number)"
    )


def add_limit_options(data: _ArgumentGroup, what: str = "samples") -> None:
    """`--limit`, `--since`."""
    data.add_argument("--limit", type=whole(1), metavar="N", help=f"only the first N {what}")
    data.add_argument(
        "--since",
        type=moment,
        metavar="WHEN",
        help="only files written since: a date or time (2026-11-24, 2026-11-24T18:00, UTC), or how long ago (90m, 36h, "
        "7d, 2w); a folder of loose pictures counts by its newest file. Saves planning: what is finished is skipped "
        "anyway. What earlier runs left unfinished in older files stays so",
    )


def add_data_options(data: _ArgumentGroup) -> None:
    """Output, key, caption, limits: what all jobs that read shards share."""
    add_output_option(data)
    add_key_column_option(data)
    data.add_argument(
        "--caption-column",
        metavar="NAME",
        help="Parquet column, tar extension or JSON field (default: caption, text, prompt, or .txt)",
    )
    data.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="only rows of Parquet files that meet it, such as 'width>=512'; repeatable, all must hold",
    )
    add_limit_options(data)
    data.add_argument(
        "--max-pixels",
        type=whole(1),
        default=100_000_000,
        metavar="N",
        help="larger pictures become error rows (default: %(default)s)",
    )


def add_prompt_option(data: _ArgumentGroup) -> None:
    """`--prompt`."""
    data.add_argument("--prompt", default="", metavar="TEXT", help="prompt of rows without a caption")


def add_model_options(model: _ArgumentGroup, steps: int | None = None) -> None:
    """The model and how it samples; `steps`: default of `--steps`, None for what the adapter recommends."""
    model.add_argument(
        "--model",
        default="mini",
        metavar="NAME",
        help="mini (ships with this project), a Stable Diffusion folder or its URI, or a hub id (default: %(default)s)",
    )
    model.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="UniCon adapter of a condition, ours or published, path or URI (default: the one in the model folder); "
        "repeatable",
    )
    model.add_argument(
        "--steps",
        type=whole(1),
        default=steps,
        metavar="N",
        help=f"sampling steps (default: {steps or 'what the adapter recommends'})",
    )
    model.add_argument(
        "--sampler", choices=SAMPLERS, default="ddim", metavar="NAME", help=f"{', '.join(SAMPLERS)} (default: ddim)"
    )
    model.add_argument(
        "--resolution",
        type=whole(8),
        metavar="PX",
        help="side of the square whose area the model works at (default: what it was made for)",
    )
    model.add_argument(
        "--seed",
        type=whole(0),
        default=0,
        metavar="N",
        help="run seed; a row's seed depends on it and the row's key alone (default: %(default)s)",
    )


def add_guidance_option(model: _ArgumentGroup, default: float) -> None:
    """`--guidance-scale`."""
    model.add_argument(
        "--guidance-scale",
        type=number(0),
        default=default,
        metavar="X",
        help="text guidance; 1 is none and twice as fast (default: %(default)s)",
    )


def add_generation_options(model: _ArgumentGroup) -> None:
    """What all jobs share that make pictures."""
    add_model_options(model, steps=20)
    add_guidance_option(model, 7.5)
    model.add_argument(
        "--condition-guidance-scale",
        type=number(0),
        default=0.0,
        metavar="X",
        help="pull towards the conditions; 0 is none (default: %(default)s)",
    )
    model.add_argument("--negative-prompt", default="", metavar="TEXT", help="what no picture shall show")


def add_work_options(work: _ArgumentGroup, chunk_size: int = 64, batch_size: int = 8) -> None:
    """How the work is cut and where it runs: nothing here changes a row."""
    work.add_argument(
        "--chunk-size",
        type=whole(1),
        default=chunk_size,
        metavar="N",
        help="samples in one output file, and in one unit of resume; an output keeps that of its first run "
        "(default: %(default)s)",
    )
    work.add_argument(
        "--batch-size",
        type=whole(1),
        default=batch_size,
        metavar="N",
        help="pictures at once on a device; halved where memory is short (default: %(default)s)",
    )
    _add_actor_options(work)
    _add_failure_options(work)


def _add_actor_options(work: _ArgumentGroup) -> None:
    work.add_argument(
        "--actors",
        type=actor_range,
        metavar="N",
        help="model copies, or MIN:MAX to start with MIN and add more while chunks wait (default: one a GPU, else one)",
    )
    work.add_argument(
        "--num-gpus-per-actor",
        type=number(0),
        metavar="X",
        help="GPUs, or a share of one, for each actor (default: 1 where there are GPUs, else 0); give it with --actors "
        "where the cluster starts without GPUs and scales up",
    )


def _add_failure_options(work: _ArgumentGroup) -> None:
    work.add_argument(
        "--retry-errors",
        action="store_true",
        help="do the failed samples of earlier runs again, and nothing that succeeded",
    )
    work.add_argument(
        "--max-error-rate",
        type=number(0, 1),
        default=1.0,
        metavar="X",
        help="share of failed samples above which the exit code is 3 (default: %(default)s)",
    )
    work.add_argument(
        "--chunk-timeout",
        type=number(1, 10_000_000),
        default=3600.0,
        metavar="SECONDS",
        help="a worker that takes longer for a chunk is ended, and the chunk done again one sample at a time; a sample "
        "that then takes longer alone, twice, goes to errors/ as timed out. Keep it above what your slowest sample "
        "takes: slow chunks are only done twice (default: %(default)g)",
    )
