"""What the commands share: argument types, errors that help, exit codes."""

import argparse
import difflib
import os
import re
import sys
from argparse import Namespace, _ArgumentGroup
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from jobs._arguments import actor_range, moment, number, whole
from pipelines.errors import SettingError

if TYPE_CHECKING:
    from pipelines.predictors import ModelIdentity
    from pipelines.row_formats import RowFormat
    from pipelines.samples import Columns
    from pipelines.tasks import PlaceableModel, TaskRun

OUTPUT_FORMATS = ("parquet", "webdataset")
SAMPLERS = ("ddim", "euler", "euler_ancestral", "dpmsolver++")
STORES = """
S3 and other stores: credentials and endpoints come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL, FSSPEC_S3_ANON=true for public buckets).
"""
EXIT_CODES = f"""
exit codes:
  0 done   1 some chunks are not finished   2 a wrong setting   3 more failures than --max-error-rate
  130, 143 interrupted; the same command goes on

how far an output is, and how its runs went: python jobs/status.py --output URI, or report.html in the output
{STORES}"""
"""The end of the help of every chunked job."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors name the closest option and do not drown it in the usage."""

    def __init__(self, description: str, epilog: str) -> None:
        super().__init__(
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and what may have been meant; exit code 2."""
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        name = unknown[1].split("=")[0] if unknown else self._unknown_option()
        hint = ""
        if name is not None:
            close = difflib.get_close_matches(name, self._option_strings(), n=1, cutoff=0.5)
            message = f"there is no option {name}" if name.startswith("-") else f"stray argument {name!r}"
            hint = f" Did you mean {close[0]}?" if close else ""
        print(f"error: {message}.{hint} --help shows all options.", file=sys.stderr)
        raise SystemExit(2)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """As argparse does; remembers the words for the error message."""
        self._words = list(sys.argv[1:] if args is None else args)
        return super().parse_args(args, namespace)

    def _option_strings(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]

    def _unknown_option(self) -> str | None:
        """The first word that looks like an option and is none: argparse complains about missing options first."""
        options = (word.split("=")[0] for word in self._words if word.startswith("--"))
        return next((option for option in options if option not in self._option_strings()), None)


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
        help="mini (ships with the project), a Stable Diffusion folder, or a hub id (default: %(default)s)",
    )
    model.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="UniCon adapter of a condition, ours or published (default: the one in the model folder); repeatable",
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


def generation_options(options: Namespace, weights: dict[str, float] | None = None) -> dict[str, Any]:
    """What `add_generation_options` gave, as values of `pipelines.generation.Generation`."""
    arguments: dict[str, Any] = {
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "condition_guidance_scale": options.condition_guidance_scale,
        "sampler": options.sampler,
    }
    if weights:
        arguments["weights"] = weights
    return {
        "arguments": arguments,
        "negative_prompt": options.negative_prompt,
        "resolution_px": options.resolution,
    }


def generation_provenance(
    options: Namespace, identity: "ModelIdentity", code_version: str, **special: str | float | int | None
) -> dict[str, Any]:
    """What made the rows; `special` settings where they were asked for."""
    special = {**special, "negative_prompt": options.negative_prompt or None, "resolution_px": options.resolution}
    return {
        **identity.provenance,
        "seed": options.seed,
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "condition_guidance_scale": options.condition_guidance_scale,
        "sampler": options.sampler,
        **{name: value for name, value in special.items() if value is not None},
        "code_version": code_version,
    }


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


def row_format_of(options: Namespace) -> "RowFormat":
    """`--output-format`."""
    from pipelines.row_formats import ROW_FORMATS

    return ROW_FORMATS[options.output_format]


def columns_of(options: Namespace, image: str | None, media: Sequence[str] = ()) -> "Columns":
    """The columns of `add_data_options`, with those of the pictures."""
    from pipelines.samples import Columns

    return Columns(
        image=image,
        key=options.key_column,
        caption=options.caption_column,
        media=tuple(media),
        where=tuple(options.where),
    )


def data_settings(options: Namespace, *names: str) -> dict[str, Any]:
    """Options of the data that change a row's content; `--where` where it was given."""
    where = {"where": options.where} if options.where else {}
    return {name: getattr(options, name) for name in (*names, "key_column", "caption_column", "max_pixels")} | where


def named_values(option: str, texts: Sequence[str], value: str) -> dict[str, str]:
    """Repeated NAME=VALUE options, in order. Raises SettingError for another syntax or a repeated name."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        if not (name and equals and rest):
            raise SettingError(f"{option} {text!r}: write NAME={value}, such as {option} depth={value.lower()}.")
        if name in found:
            raise SettingError(f"{option} {text!r}: {name} comes twice; one {option} for each name.")
        found[name] = rest
    return found


def run_task(
    options: Namespace,
    conditions: Sequence[str],
    understand: "Callable[[Namespace, ModelIdentity, PlaceableModel], TaskRun]",
) -> int:
    """Find the model with the adapters of the conditions, run the job that `understand` makes of it."""
    from pipelines import runner
    from pipelines.predictors import UniConModel, identify_model, parse_adapters

    model = UniConModel(
        model=os.path.abspath(options.model) if os.path.isdir(options.model) else options.model,
        conditions=tuple(conditions),
        adapters=parse_adapters(options.adapter, conditions),
    )
    return runner.run_job(understand(options, identify_model(model), model).as_job(), request_of(options))


def request_of(options: Namespace) -> Any:
    """What the runner needs of a command line."""
    from pipelines.runner import Request

    return Request(
        inputs=options.input,
        output=options.output,
        chunk_size=options.chunk_size,
        limit=options.limit,
        since=options.since,
        retry_errors=options.retry_errors,
        max_error_rate=options.max_error_rate,
        actors=options.actors and options.actors[1],
        fewest_actors=options.actors and options.actors[0],
        gpus_per_actor=options.num_gpus_per_actor,
        chunk_timeout_s=options.chunk_timeout,
    )


def finish(run: Callable[[], int]) -> NoReturn:
    """Run a job and leave the process with its exit code; a wrong setting is one line, not a traceback."""
    try:
        code = run()
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted before any work began", file=sys.stderr)
        code = 130
    raise SystemExit(code)
