"""Functions that the commands share: interpretation of options, checks, running a job, exit codes."""

import dataclasses
import io
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jobs._parser import Parser as Parser
from jobs._presets import FAST, preset_of
from jobs._sampling import check_limits, sampling_of
from pipelines.errors import SettingError, say
from pipelines.storage.errors import StorageError, is_refusal, redacted
from unicon.options import SamplingOptions

if TYPE_CHECKING:
    from pipelines.dataset.row_formats import RowFormat
    from pipelines.runs.task_run import PlaceableModel, TaskRun
    from pipelines.samples import Columns
    from pipelines.tasks.model_identity import ModelIdentity

STORES = """
object stores: credentials and endpoints are read from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL, FSSPEC_S3_ANON=true for public buckets).
"""
EXIT_CODES = f"""
exit codes:
  0 complete   1 incomplete; run the same command again to continue   2 wrong setting
  3 complete, but more samples failed than --max-error-rate allows, or all of them
  130, 143 interrupted; run the same command again to continue

progress of an output and history of its runs: python jobs/status.py --output URI, or report.html in the output
{STORES}"""
"""The end of the help of every chunked job."""

ALWAYS_IN_ESTIMATES = ("num_inference_steps", "guidance_scale")
ALWAYS_IN_GENERATED = (*ALWAYS_IN_ESTIMATES, "condition_guidance_scale", "sampler")
"""Sampling settings that are columns of every row even at their defaults."""


def provenance(
    identity: "ModelIdentity", options: Namespace, sampling: SamplingOptions, always: Sequence[str], code_version: str,
    **special: str | float | int | None,
) -> dict[str, Any]:  # fmt: skip
    """Return the provenance columns: sampling settings in `always` or not at their defaults, and `special` ones."""
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
    """Return the `provenance` of generated images, with the negative prompt last."""
    special |= {"negative_prompt": options.negative_prompt or None}
    return provenance(identity, options, sampling, ALWAYS_IN_GENERATED, code_version, **special)


def row_format_of(options: Namespace) -> "RowFormat":
    """Return the format that `--output-format` names."""
    from pipelines.dataset.row_formats import ROW_FORMATS

    return ROW_FORMATS[options.output_format]


def columns_of(options: Namespace, image: str | None, media: Sequence[str] = ()) -> "Columns":
    """Return the columns that `add_data_options` names, with the image column and other media columns."""
    from pipelines.samples import Columns

    return Columns(
        image=image,
        key=options.key_column,
        caption=options.caption_column,
        media=tuple(media),
        where=tuple(options.where),
    )


def data_settings(options: Namespace, *names: str) -> dict[str, Any]:
    """Return the data options that change the content of a row, including `--where` if given."""
    where = {"where": options.where} if options.where else {}
    return {name: getattr(options, name) for name in (*names, "key_column", "caption_column", "max_pixels")} | where


def named_values(option: str, texts: Sequence[str], value: str) -> dict[str, str]:
    """Parse repeated NAME=VALUE options in order.

    Raises:
        SettingError: A value has another syntax, or a name is repeated.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        if not (name and equals and rest):
            raise SettingError(f"{option} {text!r}: expected NAME={value}, such as {option} depth={value.lower()}.")
        if name in found:
            raise SettingError(f"{option} {text!r}: {name} is given twice. Give one {option} per name.")
        found[name] = rest
    return found


def run_task(
    options: Namespace,
    conditions: Sequence[str],
    make_task_run: "Callable[[Namespace, ModelIdentity, PlaceableModel], TaskRun]",
) -> int:
    """Find the model with the adapters for the conditions, then run the job that `make_task_run` describes."""
    model, identity = resolve_unicon(options, conditions)
    from pipelines.runs import runner

    run = dataclasses.replace(make_task_run(options, identity, model), identity=identity, gives_up=options.give_up)
    check_limits(identity.limits, run.task.sampling)
    if identity.files is not None:
        warn_if_truncated("--negative-prompt", getattr(options, "negative_prompt", ""), identity.files.folder)
    return runner.run_job(run.as_job(), request_of(options))


def resolve_unicon(options: Namespace, conditions: Sequence[str]) -> "tuple[PlaceableModel, ModelIdentity]":
    """Find the model with the adapters for the conditions that a command line names. Raises SettingError."""
    sampling = sampling_of(options)  # rejects contradictions before any file is read
    from pipelines.tasks.model import UniConModel
    from pipelines.tasks.model_identity import resolve_model
    from pipelines.tasks.model_options import parse_adapters, parse_loras, parse_model, parse_vae

    name, revision = parse_model(options.model)
    description = UniConModel(
        model=name,
        revision=revision,
        conditions=tuple(conditions),
        adapters=parse_adapters(options.adapter, conditions),
        loras=parse_loras(options.lora),
        vae=parse_vae(options.vae),
        uses_map_decoder=sampling.map_decoder == "small" or preset_of(options) == FAST,
        dtype=options.dtype,
        compile=options.compile,
        compiled_code=_compile_cache(options),
    )
    return resolve_model(description)


def _compile_cache(options: Namespace) -> str | None:
    if options.compile_cache is not None and options.compile == "never":
        raise SettingError(
            "--compile-cache is where compiled code is shared, and --compile never compiles nothing. Remove one of the "
            "options."
        )
    return options.compile_cache


SHORT_PROMPT_TOKENS = 48
"""Every text encoder takes this many tokens; a token has at least one byte."""


def warn_if_truncated(option: str, text: str, model: Path) -> None:
    """Warn if a prompt that is used for all rows exceeds the limit of the text encoder."""
    if len(text.encode(errors="replace")) + 2 <= SHORT_PROMPT_TOKENS:
        return  # avoids an import that takes seconds
    from transformers import CLIPTokenizer

    from unicon.prompts import tokens_cut

    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
    if cut := tokens_cut(tokenizer, [text])[0]:
        say(f"{option}: the text encoder takes {tokenizer.model_max_length} tokens; the last {cut} are truncated")


def request_of(options: Namespace) -> Any:
    """Return the request to the runner that a command line describes."""
    from pipelines.runs.request import RunRequest

    return RunRequest(
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
        max_gpu_hours=options.max_gpu_hours,
        chunk_timeout_s=options.chunk_timeout,
    )


def check_device(name: str) -> None:
    """Raise `SettingError` for a device that is not available."""
    import torch

    try:
        torch.empty(1, device=name).add(1).cpu()
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(f"--device {name} is not available: {reason}. Try --device cpu.") from error


def check_adapter_output(output: Path) -> None:
    """Raise `SettingError` if `--output` is an existing file that is not an adapter of this project."""
    from unicon.adapters.config import read_config

    if not output.is_file():
        return
    try:
        read_config(output)
    except (ValueError, TypeError, LookupError, OSError) as error:
        raise SettingError(
            f"--output {output}: the existing file is not an adapter of this project and will not be replaced. Choose "
            "another name, or move the file away."
        ) from error


def finish(run: Callable[[], int]) -> NoReturn:
    """Run a job and exit with its code. A wrong setting is reported in one line, without a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names need not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = run()
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except OSError as error:
        if not (isinstance(error, StorageError) or error.filename):
            raise  # not about a path that the user has given
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        code = 2 if is_refusal(error) else 1
    except KeyboardInterrupt:
        print("interrupted before the work began", file=sys.stderr)
        code = 130
    raise SystemExit(code)
