"""The options that the chunked jobs share, in groups; what they mean is read in `jobs._cli`."""

from argparse import _ArgumentGroup
from collections.abc import Collection, Mapping

from jobs._arguments import actor_range, moment, named_place, number, place, whole
from jobs._sampling import GENERATION_DEFAULTS, add_sampling_options

OUTPUT_FORMATS = ("parquet", "webdataset")


def add_input_option(data: _ArgumentGroup, what: str = "tars, Parquet files, folders of pictures") -> None:
    """`--input`."""
    data.add_argument(
        "--input",
        type=place,
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
    data.add_argument(
        "--output", type=place, required=True, metavar="URI", help="folder or object store prefix for the result"
    )
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
        "--key-column",
        metavar="NAME",
        help="Parquet column or JSON field of unique names (default: key, __key__, or the row number)",
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
        help="Parquet column, tar extension or JSON field (default: caption, text, prompt, or .txt). Of a list, the "
        "first text that is not empty; a value that cannot be used is explained in the column caption_note",
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


def add_model_options(model: _ArgumentGroup, defaults: Mapping[str, str], leave_out: Collection[str] = ()) -> None:
    """The model and how it samples; see `add_sampling_options`."""
    model.add_argument(
        "--model",
        type=place,
        default="mini",
        metavar="NAME",
        help="mini (ships with this project), a Stable Diffusion folder or its URI, or a hub id, OWNER/NAME or "
        "OWNER/NAME@REVISION (default: %(default)s)",
    )
    model.add_argument(
        "--adapter",
        type=named_place,
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="UniCon adapter of a condition, ours or published: path, URI, or OWNER/NAME or OWNER/NAME/FOLDER of the "
        "hub; of a repository of several the condition's folder (default: the one in the model folder); repeatable",
    )
    model.add_argument(
        "--lora",
        type=place,
        action="append",
        default=[],
        metavar="PATH[:SCALE]",
        help="LoRA for the base (kohya, diffusers or peft, safetensors): path, URI or hub id, and how much it counts, "
        "such as lcm.safetensors:0.8; fused into the model when it is loaded; repeatable",
    )
    add_sampling_options(model, defaults, leave_out)
    model.add_argument(
        "--dtype",
        choices=("float16", "bfloat16", "float32"),
        metavar="NAME",
        help="of weights and arithmetic: float16, bfloat16 for models that overflow float16, or float32 (default: "
        "float16 on a GPU, float32 on a CPU)",
    )
    model.add_argument(
        "--seed",
        type=whole(0),
        default=0,
        metavar="N",
        help="run seed; a row's seed depends on it and the row's key alone (default: %(default)s)",
    )


def add_generation_options(model: _ArgumentGroup, leave_out: Collection[str] = ()) -> None:
    """What all jobs share that make pictures."""
    add_model_options(model, GENERATION_DEFAULTS, leave_out)
    model.add_argument(
        "--negative-prompt", default="", metavar="TEXT", help="what no picture shall show; acts through text guidance"
    )


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
        type=whole(1, 65_536),
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
        type=number(0, 1024),
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
        "--give-up",
        action="store_true",
        help="take samples whose files cannot be fetched for now (no answer, time-out, 429, 5xx) for failed ones; "
        "without it every run tries them again, and the exit code is 1 while some are left",
    )
    work.add_argument(
        "--max-error-rate",
        type=number(0, 1),
        default=0.5,
        metavar="X",
        help="share of failed samples above which the exit code is 3; where all of them failed it is 3 in any case "
        "(default: %(default)s: where most fail, a setting is wrong more often than the samples)",
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
