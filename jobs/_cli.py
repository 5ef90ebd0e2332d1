"""What the commands share: errors that help, what their options mean, exit codes."""

import dataclasses
import io
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jobs._parser import Parser as Parser
from jobs._sampling import check_limits, sampling_of
from pipelines.errors import SettingError
from pipelines.storage.errors import StorageError, is_refusal, redacted
from pipelines.texts import say
from unicon.options import SamplingOptions

if TYPE_CHECKING:
    from pipelines.dataset.row_formats import RowFormat
    from pipelines.runs.task_run import PlaceableModel, TaskRun
    from pipelines.samples import Columns
    from pipelines.tasks.model import ModelIdentity

STORES = """
S3 and other stores: credentials and endpoints come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL, FSSPEC_S3_ANON=true for public buckets).
"""
EXIT_CODES = f"""
exit codes:
  0 done   1 something is left: the same command goes on   2 a wrong setting
  3 all is done, but more samples failed than --max-error-rate allows, or all of them
  130, 143 interrupted; the same command goes on

how far an output is, and how its runs went: python jobs/status.py --output URI, or report.html in the output
{STORES}"""
"""The end of the help of every chunked job."""


ALWAYS_IN_ESTIMATES = ("num_inference_steps", "guidance_scale")
ALWAYS_IN_GENERATED = (*ALWAYS_IN_ESTIMATES, "condition_guidance_scale", "sampler")
"""Settings of sampling that are columns of every row, also at their defaults."""


def provenance(
    identity: "ModelIdentity", options: Namespace, sampling: SamplingOptions, always: Sequence[str], code_version: str,
    **special: str | float | int | None,
) -> dict[str, Any]:  # fmt: skip
    """What made the rows: settings of sampling that are not the default or `always` there, and `special` ones."""
    columns = sampling.columns(always)
    special |= {"resolution_px": columns.pop("resolution_px", None), "dtype": options.dtype}
    return {
        **identity.provenance,
        "seed": options.seed,
        **columns,
        **{name: value for name, value in special.items() if value is not None},
        "code_version": code_version,
    }


def generated_provenance(
    identity: "ModelIdentity", options: Namespace, sampling: SamplingOptions, code_version: str,
    **special: str | float | int | None,
) -> dict[str, Any]:  # fmt: skip
    """`provenance` of generated images, with the negative prompt last."""
    special |= {"negative_prompt": options.negative_prompt or None}
    return provenance(identity, options, sampling, ALWAYS_IN_GENERATED, code_version, **special)


def row_format_of(options: Namespace) -> "RowFormat":
    """`--output-format`."""
    from pipelines.dataset.row_formats import ROW_FORMATS

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
    sampling_of(options)  # what contradicts itself is refused before any file is read
    from pipelines.runs import runner
    from pipelines.tasks.model import UniConModel, parse_adapters, parse_loras, parse_model, resolve_model

    name, revision = parse_model(options.model)
    description = UniConModel(
        model=name,
        revision=revision,
        conditions=tuple(conditions),
        adapters=parse_adapters(options.adapter, conditions),
        loras=parse_loras(options.lora),
        dtype=options.dtype,
    )
    model, identity = resolve_model(description)
    run = dataclasses.replace(understand(options, identity, model), identity=identity, gives_up=options.give_up)
    check_limits(identity.limits, run.task.sampling)
    if identity.files is not None:
        say_if_cut("--negative-prompt", getattr(options, "negative_prompt", ""), identity.files.folder)
    return runner.run_job(run.as_job(), request_of(options))


SHORT_PROMPT_TOKENS = 48
"""A text encoder takes these; a token is a byte or more."""


def say_if_cut(option: str, text: str, model: Path) -> None:
    """Say so where a prompt for all rows is longer than the text encoder takes."""
    if len(text.encode(errors="replace")) + 2 <= SHORT_PROMPT_TOKENS:
        return  # otherwise it takes seconds to know
    from transformers import CLIPTokenizer

    from unicon.prompts import tokens_cut

    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
    if cut := tokens_cut(tokenizer, [text])[0]:
        say(f"{option}: the text encoder takes {tokenizer.model_max_length} tokens; the last {cut} are cut off")


def request_of(options: Namespace) -> Any:
    """What the runner needs of a command line."""
    from pipelines.runs.request import Request

    return Request(
        inputs=options.input,
        output=options.output,
        chunk_size=options.chunk_size,
        limit=options.limit,
        since=options.since,
        retry_errors=options.retry_errors,
        give_up=options.give_up,
        max_error_rate=options.max_error_rate,
        actors=options.actors and options.actors[1],
        fewest_actors=options.actors and options.actors[0],
        gpus_per_actor=options.num_gpus_per_actor,
        chunk_timeout_s=options.chunk_timeout,
    )


def check_device(name: str) -> None:
    """Raises SettingError for a device that is not here."""
    import torch

    try:
        torch.empty(1, device=name).add(1).cpu()
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(f"--device {name} cannot be used here: {reason}. Try --device cpu.") from error


def check_adapter_output(output: Path) -> None:
    """Raises SettingError where `--output` names a file that is no adapter of ours: it is not replaced."""
    from unicon.adapters.checkpoint import read_config

    if not output.is_file():
        return
    try:
        read_config(output)
    except (ValueError, TypeError, LookupError, OSError) as error:
        raise SettingError(
            f"--output {output}: there is a file that is no adapter of this program, and it is not replaced. Give "
            "another name, or move that file away."
        ) from error


def finish(run: Callable[[], int]) -> NoReturn:
    """Run a job and leave the process with its exit code; a wrong setting is one line, not a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = run()
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except OSError as error:
        if not (isinstance(error, StorageError) or error.filename):
            raise  # about no place that a user could have named
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        code = 2 if is_refusal(error) else 1
    except KeyboardInterrupt:
        print("interrupted before any work began", file=sys.stderr)
        code = 130
    raise SystemExit(code)
