"""What the commands share: errors that help, what their options mean, exit codes."""

import argparse
import difflib
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from pipelines.errors import SettingError

if TYPE_CHECKING:
    from pipelines.predictors import ModelIdentity
    from pipelines.row_formats import RowFormat
    from pipelines.samples import Columns
    from pipelines.tasks import PlaceableModel, TaskRun

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
    from pipelines.request import Request

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
