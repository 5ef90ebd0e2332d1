"""The options that the chunked jobs share, in groups. `jobs._cli` interprets their values."""

from argparse import _ArgumentGroup
from collections.abc import Collection, Mapping

from jobs._arguments import actor_range, batch_size, integer, location, named_location, number, past_time
from jobs._presets import add_preset_options
from jobs._sampling import GENERATION_DEFAULTS, add_sampling_options

OUTPUT_FORMATS = ("parquet", "webdataset")


def add_input_option(data: _ArgumentGroup, what: str = "tar shards, Parquet files, folders of images") -> None:
    """Add `--input`."""
    data.add_argument(
        "--input",
        type=location,
        nargs="+",
        required=True,
        metavar="URI",
        help=f"{what}; local or s3://, gs://, ...; globs and {{000..099}} ranges are expanded",
    )


def add_image_column_option(data: _ArgumentGroup) -> None:
    """Add `--image-column`."""
    data.add_argument(
        "--image-column",
        metavar="NAME",
        help="Parquet column or tar extension of the image (default: image, or the only candidate)",
    )


def add_output_option(data: _ArgumentGroup) -> None:
    """Add `--output` and `--output-format`."""
    data.add_argument(
        "--output", type=location, required=True, metavar="URI", help="folder or object store prefix for the dataset"
    )
    data.add_argument(
        "--output-format",
        choices=OUTPUT_FORMATS,
        default="parquet",
        metavar="NAME",
        help="format of the files in data/: parquet, or webdataset (tars of KEY.jpg, KEY.CONDITION.png, KEY.json); it "
        "cannot change within an output (default: %(default)s)",
    )


def add_key_column_option(data: _ArgumentGroup) -> None:
    """Add `--key-column`."""
    data.add_argument(
        "--key-column",
        metavar="NAME",
        help="Parquet column or JSON field with unique names (default: key, __key__, or the row number)",
    )


def add_limit_options(data: _ArgumentGroup, what: str = "samples") -> None:
    """Add `--limit` and `--since`."""
    data.add_argument("--limit", type=integer(1), metavar="N", help=f"process only the first N {what}")
    data.add_argument(
        "--since",
        type=past_time,
        metavar="WHEN",
        help="plan only files modified since a date or time (2026-11-24, 2026-11-24T18:00, UTC) or within a period "
        "(90m, 36h, 7d, 2w); a folder of images has the time of its newest file. This only saves planning time: "
        "finished samples are skipped anyway, and unfinished samples of older files stay unfinished",
    )


def add_data_options(data: _ArgumentGroup) -> None:
    """Add the output, key, caption and limit options of the jobs that read shards."""
    add_output_option(data)
    add_key_column_option(data)
    data.add_argument(
        "--caption-column",
        metavar="NAME",
        help="Parquet column, tar extension or JSON field of the caption (default: caption, text, prompt, or .txt). "
        "From a list, the first non-empty text is used; the column caption_note explains values that are not usable",
    )
    data.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="process only rows of Parquet files that satisfy a condition, such as 'width>=512'; repeatable, and all "
        "conditions must hold",
    )
    add_limit_options(data)
    data.add_argument(
        "--max-pixels",
        type=integer(1),
        default=100_000_000,
        metavar="N",
        help="images with more pixels become error rows (default: %(default)s)",
    )


def add_prompt_option(data: _ArgumentGroup) -> None:
    """Add `--prompt`."""
    data.add_argument("--prompt", default="", metavar="TEXT", help="prompt for rows without a caption")


def add_model_options(
    model: _ArgumentGroup, defaults: Mapping[str, str], leave_out: Collection[str] = (), estimates: bool = True
) -> None:
    """Add the options that choose a model and how it samples; see `add_sampling_options` and `add_preset_options`."""
    _add_weight_options(model)
    add_preset_options(model, estimates)
    add_sampling_options(model, defaults, leave_out)
    model.add_argument(
        "--dtype",
        choices=("float16", "bfloat16", "float32"),
        metavar="NAME",
        help="data type of weights and computation: float16, bfloat16 (for models that overflow in float16) or float32 "
        "(default: float16 on a GPU, float32 on a CPU)",
    )
    model.add_argument(
        "--seed",
        type=integer(0),
        default=0,
        metavar="N",
        help="seed of the run; the seed of a row is derived from it and from the row's key (default: %(default)s)",
    )


def add_view_option(model: _ArgumentGroup) -> None:
    """Add `--views`."""
    model.add_argument(
        "--views",
        type=int,
        choices=(1, 2, 4),
        metavar="N",
        help="average the estimates of N views of each image: the image, 25%% larger, and both mirrored (4 is not "
        "available for poses); N times as slow and more accurate (default: recommended by the adapter, else 1)",
    )


def _add_weight_options(model: _ArgumentGroup) -> None:
    model.add_argument(
        "--model",
        type=location,
        default="mini",
        metavar="NAME",
        help="mini (included in this project), a Stable Diffusion folder or its URI, or a hub id OWNER/NAME or "
        "OWNER/NAME@REVISION (default: %(default)s)",
    )
    model.add_argument(
        "--adapter",
        type=named_location,
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="UniCon adapter for a condition, in this project's or the published format: path, URI, or hub id "
        "OWNER/NAME or OWNER/NAME/FOLDER; in a repository with several adapters, the folder of the condition is used; "
        "repeatable (default: the adapter in the model folder)",
    )
    model.add_argument(
        "--lora",
        type=location,
        action="append",
        default=[],
        metavar="PATH[:SCALE]",
        help="LoRA for the base model (safetensors of kohya, diffusers or peft): path, URI or hub id, with an optional "
        "scale, such as lcm.safetensors:0.8; fused into the weights when the model is loaded; repeatable",
    )
    model.add_argument(
        "--vae",
        type=location,
        metavar="PATH",
        help="another autoencoder of the same latents (AutoencoderKL, or the smaller and faster AutoencoderTiny, such "
        "as taesd): its folder, a model folder, URI or hub id (default: the one in the model folder)",
    )


def add_generation_options(model: _ArgumentGroup, leave_out: Collection[str] = ()) -> None:
    """Add the model options of the jobs that generate images."""
    add_model_options(model, GENERATION_DEFAULTS, leave_out, estimates=False)
    model.add_argument(
        "--negative-prompt",
        default="",
        metavar="TEXT",
        help="what the images should not show; requires text guidance (--guidance-scale above 1)",
    )


def add_work_options(work: _ArgumentGroup, chunk_size: int = 64) -> None:
    """Add the options that decide how the work is split and where it runs. None of them changes a row."""
    add_chunk_options(work, chunk_size)
    _add_actor_options(work)
    add_device_options(work)
    add_failure_options(work)


def add_chunk_options(work: _ArgumentGroup, chunk_size: int = 64) -> None:
    """Add `--chunk-size` and `--batch-size`."""
    work.add_argument(
        "--chunk-size",
        type=integer(1),
        default=chunk_size,
        metavar="N",
        help="samples per output file, which is the unit of resuming; an output keeps the chunk size of its first run "
        "(default: %(default)s)",
    )
    work.add_argument(
        "--batch-size",
        type=batch_size,
        metavar="N",
        help="images per batch on a device; halved when the device runs out of memory. auto: 8 on a CPU; on a GPU "
        "doubled from 8 as long as that makes it faster, and remembered for the next run (default: auto)",
    )


def _add_actor_options(work: _ArgumentGroup) -> None:
    work.add_argument(
        "--actors",
        type=actor_range,
        metavar="N",
        help="number of model copies, or MIN:MAX to start with MIN and add more while chunks wait (default: one per "
        "GPU; one without GPUs)",
    )
    work.add_argument(
        "--num-gpus-per-actor",
        type=number(0, 1024),
        metavar="X",
        help="GPUs, or a fraction of one, for each actor (default: 1 in a cluster with GPUs, else 0). Set it together "
        "with --actors when the cluster starts without GPUs and scales up",
    )


def add_device_options(work: _ArgumentGroup) -> None:
    """Add `--compile`, `--compile-cache` and `--max-gpu-hours`."""
    work.add_argument(
        "--compile",
        choices=("auto", "always", "never"),
        default="auto",
        metavar="NAME",
        help="whether to compile the model: auto (on GPUs, where it saves more time than it takes), always, or never "
        "(default: %(default)s)",
    )
    work.add_argument(
        "--compile-cache",
        type=location,
        metavar="URI",
        help="folder where the actors of several machines share compiled code. They execute what they find there: name "
        "only a place that nobody else can write to (default: each machine keeps it in the user's cache)",
    )
    work.add_argument(
        "--max-gpu-hours",
        type=number(0.001, 100_000_000),
        metavar="X",
        help="end this run before its actors have held GPUs for more than X hours x GPUs: no chunk begins that might "
        "not be finished before, and the exit code is 1. Counts from the start of loading the model, and again in each "
        "run (default: no limit)",
    )


def add_failure_options(work: _ArgumentGroup) -> None:
    """Add the options about samples that fail and workers that hang."""
    work.add_argument(
        "--retry-errors",
        action="store_true",
        help="process only the failed samples of earlier runs again",
    )
    work.add_argument(
        "--give-up",
        action="store_true",
        help="count samples as failed when their files cannot be fetched at the moment (no response, timeout, 429, "
        "5xx); without it every run tries them again and exits with code 1 until none is left",
    )
    work.add_argument(
        "--max-error-rate",
        type=number(0, 1),
        default=0.5,
        metavar="X",
        help="share of failed samples above which the exit code is 3; it is also 3 when all samples failed "
        "(default: %(default)s, since a majority of failures usually means a wrong setting)",
    )
    work.add_argument(
        "--chunk-timeout",
        type=number(1, 10_000_000),
        default=3600.0,
        metavar="SECONDS",
        help="time limit of a worker for a chunk. After a timeout the worker is killed and the samples of the chunk "
        "are processed one by one; a sample that exceeds the limit twice on its own goes to errors/. Choose a limit "
        "above the time of your slowest sample; slow chunks are merely processed twice (default: %(default)g)",
    )
