"""The options `--engine`, and running a job with an engine other than UniCon.

Tested in tests/jobs/test_engines.py.
"""

import dataclasses
from argparse import Namespace, _ArgumentGroup
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engines import FAMILIES, EngineSpec, parse_engine
from engines.spec import UNICON
from jobs import _cli
from jobs._arguments import location
from pipelines.errors import SettingError, say
from unicon.options import option_names

if TYPE_CHECKING:
    from pipelines.runs.request import Job
    from pipelines.runs.task_run import PlaceableModel, TaskRun
    from pipelines.tasks.engine_model import EngineIdentity

    MakeTaskRun = Callable[[Namespace, EngineIdentity, PlaceableModel], TaskRun]

OF_UNICON = (
    "--adapter", "--lora", "--vae", "--preset", "--published", *option_names().values(), "--ensemble", "--views",
    "--coarse", "--compile", "--compile-cache",
)  # fmt: skip
"""Options that mean something to UniCon alone."""


def add_engine_options(engine: _ArgumentGroup, makes_images: bool) -> None:
    """Add `--engine` and its options, for the engines that make images or for those that estimate conditions."""
    families = [each for each in FAMILIES.values() if each.makes_images == makes_images]
    known = "; ".join(f"{family.name}:{family.place} ({family.help})" for family in families)
    engine.add_argument(
        "--engine",
        default=UNICON,
        metavar="NAME",
        help=f"what computes the rows: {UNICON}; {known}. DIR is a folder, a URI, or a hub id (default: %(default)s)",
    )
    engine.add_argument(
        "--engine-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the engine, see docs/engines.md; repeatable",
    )
    if not makes_images:
        engine.add_argument(
            "--engine-weights",
            type=location,
            metavar="PATH",
            help="folder, URI or hub id with the weights of an annotator (default: its repository in the hub)",
        )


def check_engine_options(parser: _cli.Parser, options: Namespace, makes_images: bool) -> None:
    """Check that the options belong to the engine.

    Raises:
        SettingError: An option of UniCon is given with another engine, or one of an engine with UniCon; or the engine
            does something else than the job.
    """
    if options.engine == UNICON:
        for option in ("--engine-option", "--engine-weights"):
            if value := getattr(options, _dest(option), None):
                raise SettingError(
                    f"{option} {value if isinstance(value, str) else value[0]} is for engines other than {UNICON}. "
                    "Name one with --engine, or remove the option."
                )
        return
    spec = engine_of(options)
    if spec.family.makes_images != makes_images:
        does = "makes images from conditions" if spec.family.makes_images else "estimates conditions of images"
        other = "synthesize.py" if spec.family.makes_images else "estimate.py"
        raise SettingError(f"--engine {spec.text} {does}. Use it with jobs/{other}.")
    for option in given_of_unicon(parser, options):
        if option == "--model" and spec.family.makes_images:
            continue
        names = ", ".join(each.name for each in spec.family.options(spec.name))
        raise SettingError(
            f"{option} belongs to the engine {UNICON}; with --engine {spec.text} it has no effect. Remove it. "
            f"{f'The options of this engine, given as --engine-option NAME=VALUE, are {names}.' if names else ''}"
        )


def given_of_unicon(parser: _cli.Parser, options: Namespace) -> list[str]:
    """Return the options that mean something to UniCon alone and are not at their defaults."""
    found = {option: getattr(options, _dest(option), None) for option in (*OF_UNICON, "--model")}
    return [
        option for option, value in found.items() if value is not None and value != parser.get_default(_dest(option))
    ]


def engine_of(options: Namespace) -> EngineSpec:
    """Return the engine of a command line. Raises SettingError."""
    try:
        return parse_engine(
            options.engine,
            options.engine_option,
            weights=getattr(options, "engine_weights", None),
            base=options.model,
        )
    except ValueError as error:
        raise SettingError(f"--engine: {error}") from error


def engine_job(options: Namespace, condition: str | None, make_task_run: "MakeTaskRun") -> "Job":
    """Find the engine, and return the job that `make_task_run` describes. Raises SettingError."""
    from pipelines.tasks.engine_model import resolve_engine

    spec = engine_of(options)
    model, identity = resolve_engine(spec, condition=condition, dtype=options.dtype)
    if note := spec.family.license_note(spec.name):
        say(f"{spec.text}: {note}")
    run = dataclasses.replace(make_task_run(options, identity, model), identity=identity, gives_up=options.give_up)
    return run.as_job()


def run_engine(options: Namespace, condition: str | None, make_task_run: "MakeTaskRun") -> int:
    """Run the job of `engine_job`, and return the exit code."""
    job = engine_job(options, condition, make_task_run)
    from pipelines.runs import runner

    return runner.run_job(job, _cli.request_of(options))


def engine_provenance(
    identity: "EngineIdentity", options: Namespace, code_version: str, **special: str | float | int | None
) -> dict[str, Any]:
    """Return the provenance columns of rows that an engine makes, with `special` ones that have a value."""
    special |= {"dtype": options.dtype}
    return {
        **identity.provenance,
        "seed": options.seed,
        **{name: value for name, value in special.items() if value is not None},
        "code_version": code_version,
    }


def _dest(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")
