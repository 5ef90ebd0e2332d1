"""What the options of `build_corpus.py` mean: engines, captions, filters, columns.

Tested in tests/jobs/test_build_corpus.py.
"""

import re
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from engines import parse_engine
from engines.spec import UNICON
from jobs import _cli, estimate
from jobs._arguments import actor_range, number
from pipelines.errors import SettingError
from unicon.condition_kinds import CONDITION_KINDS

if TYPE_CHECKING:
    from pipelines.runs.request import RunRequest
    from pipelines.runs.row_run import TaskStage
    from pipelines.tasks.captions import Captions
    from pipelines.tasks.condition_columns import ConditionColumn
    from pipelines.tasks.corpus import Corpus, KeptColumn
    from pipelines.tasks.corpus_filters import Filters

CAPTION = "caption"
"""Name of the captioner among the engines."""
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
ENGINE_OPTION = re.compile(r",(?=[a-z_]+=)")
"""Separates an engine and its options: a comma before NAME=."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine of a corpus: its stage, and what is recorded about it."""

    stage: "TaskStage"
    names: tuple[str, ...]
    """Its columns, by which options name it."""
    conditions: "tuple[ConditionColumn, ...]" = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    """Columns of every row."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Other settings that change a row."""
    is_light: bool = False
    """Whether it has no weights and gains nothing from a GPU."""


def engines_of(options: Namespace) -> list[Engine]:
    """Find and check the engines of a command line, without loading them. Raises SettingError.

    Several conditions of `unicon` are estimated together, where the first one stands.
    """
    wanted = _cli.named_values("--condition", options.condition, "ENGINE")
    ours = [name for name, engine in wanted.items() if engine == UNICON]
    found = []
    for name, engine in wanted.items():
        if engine != UNICON:
            found.append(_engine(options, name, engine))
        elif name == ours[0]:
            found.append(_unicon(options, ours))
    return found


def _unicon(options: Namespace, names: list[str]) -> Engine:
    model, identity = _cli.resolve_unicon(options, names)
    run = replace(estimate.task_run(options, identity, model), identity=identity)
    _cli.check_limits(identity.limits, run.task.sampling)
    about = {"engine": f"{UNICON}:{identity.model}", "weights_sha256": identity.weights_sha256}
    provenance = {f"{name}_{column}": value for name in names for column, value in about.items()}
    (stage,) = run.stages
    return Engine(
        stage=replace(stage, name=_stage_name(names)),
        names=tuple(names),
        conditions=identity.conditions,
        provenance={**provenance, **identity.revisions},
        settings={UNICON: {**_without(run.provenance, ("seed", *identity.revisions)), **run.model_config}},
    )


def _without(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _engine(options: Namespace, name: str, text: str) -> Engine:
    from pipelines.runs.row_run import TaskStage
    from pipelines.tasks.engine_model import resolve_engine
    from pipelines.tasks.estimation import Estimation

    engine, *settings = ENGINE_OPTION.split(text)
    weights = [each.removeprefix("weights=") for each in settings if each.startswith("weights=")]
    try:
        spec = parse_engine(
            engine,
            [each for each in settings if not each.startswith("weights=")],
            weights=weights[0] if weights else None,
        )
        if spec.family.makes_images:
            raise ValueError(f"{spec.text} makes images; a corpus needs engines that estimate maps of images.")
    except ValueError as error:
        raise SettingError(f"--condition {name}={text}: {error}") from error
    dtype = options.dtype if spec.family.has_dtype else None
    try:
        model, identity = resolve_engine(spec, condition=name, dtype=dtype)
    except SettingError as error:
        raise SettingError(str(error).replace("--engine", f"--condition {name}={text}", 1)) from error
    about = {"engine": spec.text, **identity.provenance}
    task = Estimation(conditions=identity.conditions, max_pixels=options.max_pixels)
    return Engine(
        stage=TaskStage(task=task, model=model, batch_size=options.batch_size, name=_stage_name([name])),
        names=(name,),
        conditions=identity.conditions,
        provenance={f"{name}_{column}": value for column, value in about.items()},
        settings={f"{name}_{what}": value for what, value in (("dtype", dtype), ("config", identity.config)) if value},
        is_light=spec.weights is None,
    )


def captioner_of(options: Namespace, captions: "Captions") -> list[Engine]:
    """Return the captioner of a command line, if there is one. Raises SettingError."""
    if options.captioner is None:
        if options.caption_prompt is not None:
            raise SettingError("--caption-prompt asks a --captioner. Name one, or remove the option.")
        return []
    from pipelines.runs.row_run import TaskStage
    from pipelines.tasks.captioner_model import resolve_captioner
    from pipelines.tasks.captions import Captioning

    model, identity = resolve_captioner(options.captioner, options.dtype, options.caption_prompt)
    task = Captioning(captions=replace(captions, captioner=identity.name))
    return [
        Engine(
            stage=TaskStage(task=task, model=model, batch_size=options.batch_size, name=_stage_name([CAPTION])),
            names=(CAPTION,),
            provenance={
                "captioner": identity.name,
                "captioner_weights_sha256": identity.weights_sha256,
                "captioner_engine_package": identity.package,
            },
            settings={"caption_prompt": identity.prompt} if identity.prompt else {},
        )
    ]


def captions_of(options: Namespace) -> "Captions":
    """Return where captions come from, without the name of the captioner. Raises SettingError."""
    from pipelines.tasks.captions import Captions, CaptionTemplate

    if options.recaption and options.captioner is None:
        raise SettingError("--recaption needs a --captioner that describes the images. Name one, or remove the option.")
    template = None if options.caption_template is None else CaptionTemplate(options.caption_template)
    return Captions(template=template, recaption=options.recaption)


def kept_of(options: Namespace) -> "tuple[KeptColumn, ...]":
    """Return the columns of `--keep-column`. Raises SettingError."""
    from pipelines.tasks.corpus import KeptColumn

    found = []
    for name, text in _cli.named_values("--keep-column", options.keep_column, "KIND:COLUMN").items():
        kind, _, source = text.partition(":")
        if kind not in CONDITION_KINDS or not source:
            raise SettingError(
                f"--keep-column {name}={text}: expected NAME=KIND:COLUMN with a kind of {', '.join(CONDITION_KINDS)}, "
                f"such as {name}=depth:depth.png."
            )
        found.append(KeptColumn(name=name, kind=kind, source=source))
    return tuple(found)


def filters_of(options: Namespace, pairs: "Sequence[tuple[ConditionColumn, ConditionColumn]]") -> "Filters":
    """Return the filters of a command line; `pairs` are the columns whose agreement is known. Raises SettingError."""
    from pipelines.tasks.corpus_filters import Filters
    from pipelines.tasks.expressions import Expression

    fewest, most = options.min_caption_words, options.max_caption_words
    if fewest is not None and most is not None and fewest > most:
        raise SettingError(
            f"--min-caption-words {fewest} is more than --max-caption-words {most}: nothing would be left."
        )
    return Filters(
        min_size_px=options.min_size,
        max_aspect=options.max_aspect,
        min_entropy=options.min_entropy,
        min_sharpness=options.min_sharpness,
        min_caption_words=fewest,
        max_caption_words=most,
        agreements=tuple(_agreement(text, pairs) for text in options.min_agreement),
        keep=tuple(Expression(text) for text in options.keep),
    )


def _agreement(text: str, pairs: "Sequence[tuple[ConditionColumn, ConditionColumn]]") -> Any:
    from pipelines.tasks.corpus_filters import MinAgreement

    names, _, least = text.partition("=")
    known = {f"{first.name}:{second.name}": (first.name, second.name) for first, second in pairs}
    turned = {f"{second}:{first}": (first, second) for first, second in known.values()}
    try:
        first, second = {**known, **turned}[names]
        return MinAgreement(first=first, second=second, least=number(-1, 1)(least))
    except KeyError:
        there = f"these are {', '.join(known)}" if known else "there are none"
        raise SettingError(
            f"--min-agreement {text}: expected A:B=X with two columns of one kind of condition; {there}."
        ) from None
    except ArgumentTypeError as error:
        raise SettingError(f"--min-agreement {text}: {error}.") from None


def task_of(options: Namespace, engines: Sequence[Engine], captions: "Captions") -> "Corpus":
    """Return how the rows of the corpus are read and written. Raises SettingError."""
    from pipelines.tasks.corpus import Corpus

    captioner = next((str(each.provenance["captioner"]) for each in engines if each.names == (CAPTION,)), "")
    task = Corpus(
        estimated=tuple(condition for engine in engines for condition in engine.conditions),
        kept=kept_of(options),
        captions=replace(captions, captioner=captioner),
        max_pixels=options.max_pixels,
    )
    provenance = [name for engine in engines for name in engine.provenance]
    check_names([each.name for each in task.conditions], [*task.other_columns, *provenance, "seed", "code_version"])
    return replace(task, filters=filters_of(options, task.pairs))


def fields_of(task: "Corpus") -> dict[str, str]:
    """Return the fields of the input that captions and filters use, each with the option that names it."""
    from pipelines.tasks.corpus import FILTER_COLUMNS, agreement_column

    template = task.captions.template
    in_captions = {name: "--caption-template" for name in (template.names if template else ()) if name != CAPTION}
    known = FILTER_COLUMNS | {agreement_column(*pair) for pair in task.pairs}
    in_filters = {name: "--keep" for each in task.filters.keep for name in sorted(each.names - known)}
    return {**in_filters, **in_captions}


def check_names(names: Sequence[str], others: Sequence[str]) -> None:
    """Check that the names of conditions can be names of columns beside the `others`. Raises SettingError."""
    for name in names:
        if NAME.fullmatch(name) is None:
            raise SettingError(f"the name of a column has letters, digits and underscores; got {name!r}. Rename it.")
        if name in others or names.count(name) > 1:
            raise SettingError(f"{name!r} is the name of another column of the corpus already. Choose another name.")


def request_of(options: Namespace, engines: Sequence[Engine]) -> "RunRequest":
    """Return the request to the runner, with the actors of each engine. Raises SettingError."""
    from pipelines.runs.request import ActorRequest

    actors = _by_engine("--actors", options.actors, engines, actor_range)
    gpus = _by_engine("--num-gpus-per-actor", options.num_gpus_per_actor, engines, number(0, 1024))
    plain = Namespace(**{**vars(options), "actors": None, "num_gpus_per_actor": None})
    asked: dict[str, ActorRequest] = {}
    for engine in engines:
        fewest, most = actors.get(engine.stage.name) or (None, None)
        share = gpus.get(engine.stage.name, 0.0 if engine.is_light else None)
        asked[engine.stage.name] = ActorRequest(actors=most, fewest_actors=fewest, gpus_per_actor=share)
    return replace(_cli.request_of(plain), engines=asked)


def _by_engine(
    option: str, texts: Sequence[str], engines: Sequence[Engine], parse: Callable[[str], Any]
) -> dict[str, Any]:
    """Parse [NAME=]VALUE options into stage -> value. Raises SettingError."""
    stages = {name: engine.stage.name for engine in engines for name in engine.names}
    named: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        if name and name not in stages:
            raise SettingError(f"{option} {text}: there is no engine {name!r}, only {', '.join(stages)}.")
        if stages.get(name, "") in named:
            raise SettingError(f"{option} {text}: this engine has a number already. Give one.")
        try:
            named[stages.get(name, "")] = parse(value)
        except ArgumentTypeError as error:
            raise SettingError(f"{option} {text}: {error}.") from None
    every = {} if "" not in named else dict.fromkeys(stages.values(), named.pop(""))
    return {**every, **named}


def _stage_name(names: Sequence[str]) -> str:
    return f"model {'+'.join(names)}"
