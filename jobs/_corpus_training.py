"""Training on a corpus: the checks and settings of `train_adapter.py` with `--corpus`.

Tested in tests/jobs/test_train_corpus.py.
"""

import importlib.util
import os
import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs._adapter_training import make_recipe, report_as, trained_adapter
from jobs._sampling import check_limits
from pipelines.errors import SettingError, say
from unicon.condition_kinds import CONDITION_KINDS
from unicon.options import SamplingOptions

if TYPE_CHECKING:
    from pipelines.tasks.model import UniConModel
    from pipelines.tasks.model_identity import ModelIdentity
    from pipelines.training.conditions import CorpusCondition
    from pipelines.training.corpus import Corpus, PlannedCorpus
    from pipelines.training.run import CorpusTraining
    from unicon.training.recipe import AdapterRecipe

CONDITION = re.compile(r"(?P<name>[A-Za-z0-9_]+)(?:=(?P<kind>\w+))?(?::(?P<column>.+))?")
IMAGES_OPTIONS = ("conditions", "annotator", "annotator_weights")
"""Options that need `--images`."""
ANNOTATORS = "controlnet-aux:"
"""Beginning of the names of engines that are known by the rest of the name."""
DEVICES = (None, "cpu", "cuda")
FOLDERS = ("", "training", "tensorboard")
"""Folders in a work folder."""


def train(options: Namespace) -> int:
    """Check the settings before Ray starts, train, and return the exit code."""
    from pipelines.training import run

    return run.run(prepare(options))


def prepare(options: Namespace) -> "CorpusTraining":
    """Check the settings, plan the corpus, and keep the settings in the work folder. Raises SettingError."""
    from pipelines.training import run
    from pipelines.training.checkpoints import StoredCheckpoints
    from pipelines.training.corpus import plan_corpus

    check_options(options)
    corpus = corpus_of(options)
    description, identity = model_of(options, [each.name for each in corpus.conditions])
    plan = plan_corpus(corpus, options.work, say)
    say(f"corpus: {plan.rows} rows to train on, {plan.held_out_rows} held out")
    recipe = recipe_of(options, plan, identity)
    settings = settings_of(options, plan, identity, recipe)
    run.keep_settings(options.work, settings, StoredCheckpoints(options.work).step() > 0)
    return training_of(options, plan, description, identity, recipe)


def check_options(options: Namespace) -> None:
    """Check the options by themselves, and make places absolute. Raises SettingError."""
    from pipelines import storage

    for name in IMAGES_OPTIONS:
        if getattr(options, name) is not None:
            raise SettingError(
                f"--{name.replace('_', '-')} is for --images; the conditions of a corpus are columns. Make them with "
                "jobs/build_corpus.py, and name them with --condition."
            )
    if options.device not in DEVICES:
        raise SettingError(
            f"--device {options.device}: workers on a corpus use cuda (a GPU each) or cpu. To choose GPUs, set "
            "CUDA_VISIBLE_DEVICES."
        )
    if options.num_workers[1] > options.batch_size:
        raise SettingError(
            f"--num-workers {options.num_workers[1]}: every worker needs a row of the batch of {options.batch_size}. "
            "Use fewer workers, or a larger --batch-size."
        )
    if options.cache_latents and options.random_crop:
        raise SettingError("--cache-latents keeps one part of every image. Add --no-random-crop, or leave it out.")
    if options.wandb and importlib.util.find_spec("wandb") is None:
        raise SettingError(
            "--wandb needs the package wandb, which is not installed. Install it with pip install wandb."
        )
    check_places(options)
    options.work, options.output = (storage.normalize(text) for text in (options.work, options.output))


def check_places(options: Namespace) -> None:
    """Raise SettingError unless the work folder and the output can be written."""
    from jobs._cli import check_adapter_output
    from pipelines import storage
    from pipelines.dataset.layout import check_output

    check_output(options.work, "--work", FOLDERS)
    is_file = options.output.endswith(".safetensors")
    storage.check_writable("--output", options.output, () if is_file else ("",))
    if is_file and storage.protocol(options.output) == "file":
        check_adapter_output(Path(storage.normalize(options.output)))


def corpus_of(options: Namespace) -> "Corpus":
    """Return the corpus that the options describe. Raises SettingError."""
    from pipelines.training.corpus import Corpus

    conditions = [parse_condition(text) for text in options.condition]
    names = [condition.name for condition in conditions]
    if len(set(names)) < len(names):
        raise SettingError(f"--condition: every adapter needs a name of its own; got {', '.join(names)}.")
    if len(names) > 1 and options.output.endswith(".safetensors"):
        raise SettingError(f"--output {options.output} is one file, for {len(names)} adapters. Give a folder.")
    return Corpus(
        uris=tuple(options.corpus),
        conditions=tuple(conditions),
        image=options.image_column,
        caption=options.caption_column,
        weight=options.weight_column,
        where=tuple(options.where),
    )


def parse_condition(text: str) -> "CorpusCondition":
    """Parse `NAME[=KIND][:COLUMN]`. The kind may be left open. Raises SettingError."""
    from pipelines.training.conditions import CorpusCondition

    match = CONDITION.fullmatch(text)
    if match is None:
        raise SettingError(
            f"--condition {text!r}: expected NAME, NAME=KIND or NAME=KIND:COLUMN with a name of letters, digits and "
            "underscores, such as canny=edge."
        )
    name, kind = match["name"], match["kind"]
    if kind is not None and kind not in CONDITION_KINDS:
        raise SettingError(
            f"--condition {text!r}: {kind!r} is no kind of condition. The kinds: {', '.join(sorted(CONDITION_KINDS))}."
        )
    return CorpusCondition(name=name, kind=kind or "", column=match["column"])


def model_of(options: Namespace, names: Sequence[str]) -> "tuple[UniConModel, ModelIdentity]":
    """Find and check the model and the adapters to start from. Raises SettingError."""
    from pipelines.tasks.model import UniConModel
    from pipelines.tasks.model_identity import resolve_model
    from pipelines.tasks.model_options import parse_adapters, parse_model

    name, revision = parse_model(options.model)
    starts = parse_adapters(options.start_from, names, "--start-from")
    try:
        description, identity = resolve_model(
            UniConModel(model=name, revision=revision, conditions=tuple(starts), adapters=starts)
        )
    except SettingError as error:
        raise SettingError(str(error).replace("--adapter", "--start-from")) from error
    check_limits(identity.limits, SamplingOptions(resolution_px=options.resolution))
    return description, identity


def recipe_of(options: Namespace, plan: "PlannedCorpus", identity: "ModelIdentity") -> "AdapterRecipe":
    """Return the recipe. Raises SettingError for values that contradict each other."""
    made_by = {name: text.removeprefix(ANNOTATORS) for name, text in plan.made_by.items()}
    starts = identity.files.adapters if identity.files is not None and options.start_from else {}
    adapters = [
        trained_adapter(options, each.name, each.kind, made_by.get(each.name, ""), starts.get(each.name))
        for each in plan.conditions
    ]
    return report_as("training options", lambda: make_recipe(options, options.dtype or "float32", plan.rows, adapters))


def training_of(
    options: Namespace,
    plan: "PlannedCorpus",
    description: "UniConModel",
    identity: "ModelIdentity",
    recipe: "AdapterRecipe",
) -> "CorpusTraining":
    """Return the training that the options describe."""
    from pipelines.training.checkpoints import StoredCheckpoints
    from pipelines.training.output import AdapterOutput
    from pipelines.training.run import CorpusTraining
    from pipelines.training.steps import CorpusSteps
    from pipelines.training.windows import WindowReader
    from pipelines.training.work import AdapterWork
    from unicon.files.hashes import cache_folder

    limits = identity.limits
    assert limits is not None
    reader = WindowReader(
        names=tuple(recipe.kinds),
        kinds=tuple(recipe.kinds.values()),
        views=recipe.make_views(limits.native_px, limits.multiple_px),
        batch_size=options.batch_size,
        seed=options.seed,
        max_pixels=options.max_pixels,
    )
    checkpoints = StoredCheckpoints(options.work)
    work = AdapterWork(
        model=description,
        recipe=recipe,
        held_out=tuple((group, plan.columns[at]) for group, at in plan.held_out),
        max_pixels=options.max_pixels,
        work=options.work,
        output=AdapterOutput(uri=options.output, model=identity.model, data=card_data(options, plan)),
        dtype=options.dtype,
        cache=cache_folder() / "latents" if options.cache_latents else None,
        identity=f"{identity.weights_sha256} {plan.fingerprint}",
        threads=int(os.environ.get("OMP_NUM_THREADS") or 0) or None,
        tensorboard=options.tensorboard,
        wandb=options.wandb,
    )
    steps = CorpusSteps(corpus=plan, reader=reader, checkpoints=checkpoints, steps=recipe.fit.steps)
    return CorpusTraining(
        work=work, steps=steps, workers=options.num_workers, device=options.device, left_out=plan.left_out
    )


def card_data(options: Namespace, plan: "PlannedCorpus") -> dict[str, Any]:
    """Return what the model card says about the data."""
    return {
        "corpus": " ".join(options.corpus),
        "rows": f"{plan.rows} trained, {plan.held_out_rows} held out",
        **({"selection": " and ".join(options.where)} if options.where else {}),
        **({"weights": f"column {options.weight_column}"} if options.weight_column else {}),
        **{f"{name} made by": text for name, text in plan.made_by.items()},
        "fingerprint": plan.fingerprint,
    }


def settings_of(
    options: Namespace, plan: "PlannedCorpus", identity: "ModelIdentity", recipe: "AdapterRecipe"
) -> dict[str, Any]:
    """Return the settings that must not change when a training goes on. Others are in its checkpoints."""
    return {
        "corpus": f"{' '.join(options.corpus)} ({plan.rows} rows, {plan.fingerprint})",
        "conditions": ", ".join(f"{each.name}={each.kind}:{each.parquet_column}" for each in plan.conditions),
        "weights_sha256": identity.weights_sha256,
        "steps": recipe.fit.steps,
        "batch_size": options.batch_size,
        "seed": options.seed,
        "rank": recipe.adapters[0].config.rank,
        "learning_rate": options.learning_rate,
        "max_pixels": options.max_pixels,
    }
