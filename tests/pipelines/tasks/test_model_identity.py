"""What of a model is in the configuration, and which outputs it continues."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs import _cli, estimate
from pipelines.errors import SettingError
from pipelines.runs.environment import Environment
from pipelines.runs.runner import run_job
from pipelines.tasks.model import UniConModel
from pipelines.tasks.model_identity import ModelIdentity, identify_model, resolve_model
from pipelines.tasks.model_options import parse_loras
from tests.support.fake_depth import FakeDepth
from tests.support.images import write_squares
from tests.support.in_process import InProcess
from tests.support.inputs import all_rows
from tests.support.paths import CASES
from tests.support.tiny import write_tiny_model
from unicon.files.hashes import fingerprint
from unicon.files.model_config import model_config

torch.set_num_threads(1)  # tiny models are slower on several threads, much slower beside other work
KOHYA = CASES / "adapters" / "kohya.safetensors"
UNET = "unet/diffusion_pytorch_model.safetensors"
Change = Callable[[Path], Any]


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the model to change."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))


def identity_of(folder: Path, **options: Any) -> ModelIdentity:
    return identify_model(UniConModel(model=str(folder), conditions=("depth",), **options))


def config(file: str, **values: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values, indent=1))

    return change


def copy_to(source: str, target: str) -> Change:
    def change(folder: Path) -> None:
        (folder / target).parent.mkdir(exist_ok=True)
        shutil.copy(folder / source, folder / target)

    return change


def without(file: str, *names: str) -> Change:
    def change(folder: Path) -> None:
        values = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({name: values[name] for name in values if name not in names}))

    return change


def another_merge(folder: Path) -> None:
    path = folder / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] = [["a", "b"]]
    content["model"]["vocab"]["ab"] = content["model"]["vocab"].pop(",</w>")
    path.write_text(json.dumps(content))


SCHEDULER, TOKENIZER = "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"
MATTERS: dict[str, Change] = {
    "betas": config(SCHEDULER, beta_end=0.02),
    "prediction": config(SCHEDULER, prediction_type="v_prediction"),
    "zero-snr": config(SCHEDULER, rescale_betas_zero_snr=True),
    "tokenizer": another_merge,
    "padding": config(TOKENIZER, pad_token="a"),
    "length": config(TOKENIZER, model_max_length=10),
    "activation": config("text_encoder/config.json", hidden_act="gelu"),
    "epsilon": config("text_encoder/config.json", layer_norm_eps=1e-6),
    "unet": config("unet/config.json", norm_eps=1e-6),
    "heads": config("unet/config.json", sample_size=32),
    "vae": config("vae/config.json", scaling_factor=0.13025),
}
IRRELEVANT: dict[str, Change] = {
    "nothing": lambda folder: None,
    "versions": config(SCHEDULER, _diffusers_version="9.9", _class_name="PNDMScheduler", skip_prk_steps=True),
    "sampling-of-others": config(SCHEDULER, timestep_spacing="leading", set_alpha_to_one=True, clip_sample=True),
    "unet-versions": config("unet/config.json", _diffusers_version="0.6.0", _name_or_path="elsewhere", dropout=0.1),
    "defaults-left-out": without("unet/config.json", "act_fn", "norm_eps", "attention_type", "dual_cross_attention"),
    "text-versions": config("text_encoder/config.json", transformers_version="4.0", dtype="float16", dropout=0.5,
                            eos_token_id=2, projection_dim=512, architectures=["CLIPModel"]),
    "vae-tiles": config("vae/config.json", sample_size=512, force_upcast=False),
    "card": lambda folder: (folder / "README.md").write_text("a model"),
    "index": config("model_index.json", _class_name="StableDiffusionImg2ImgPipeline"),
    "half-copy": copy_to(UNET, "unet/diffusion_pytorch_model.fp16.safetensors"),
    "safety-checker": copy_to("text_encoder/model.safetensors", "safety_checker/model.safetensors"),
    "another-adapter": copy_to("adapters/depth.safetensors", "adapters/edge.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*MATTERS, *IRRELEVANT])
def test_what_changes_a_row_is_in_the_configuration(name: str, tiny_folder: Path, folder: Path) -> None:
    (MATTERS.get(name) or IRRELEVANT[name])(folder)
    before, after = identity_of(tiny_folder), identity_of(folder)
    assert before.weights_sha256 == after.weights_sha256
    assert (before.config != after.config) == (name in MATTERS)


def test_the_tokenizer_counts_by_content_not_by_file(tiny_folder: Path, folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink()
    model = json.loads((tiny_folder / "tokenizer" / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, model["merges"])))
    assert model_config(folder) == model_config(tiny_folder)


class Command:
    """A command in this process; a real model is checked and hashed, and a fake model makes the rows."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder, self.inputs, self.output = folder, write_squares(root / "in", 2), root / "out"
        self.said: list[str] = []

    def run(self, *options: str, earlier: bool = False, weights_sha256: str = "") -> int:
        """Run the command; `earlier`: as version 0.2, which recorded only the hash of the weights of the model."""
        arguments = ["--input", str(self.inputs), "--output", str(self.output), "--model", str(self.folder), *options]
        parsed = estimate.parse([*arguments, "--steps", "1", "--chunk-size", "1"])
        _, identity = resolve_model(
            UniConModel(model=str(self.folder), conditions=("depth",), loras=parse_loras(parsed.lora), device="cpu")
        )
        identity = dataclasses.replace(identity, weights_sha256=weights_sha256 or identity.weights_sha256)
        task_run = estimate.task_run(parsed, identity, FakeDepth())
        task_run = dataclasses.replace(task_run, identity=None if earlier else identity)
        environment = Environment(
            executor=InProcess(),
            say=self.said.append,
            heartbeat=lambda beat: nullcontext(),
            afterwards=lambda out: None,
        )
        return run_job(task_run.as_job(), _cli.request_of(parsed), environment)


@pytest.fixture
def command(folder: Path, tmp_path: Path) -> Command:
    return Command(tmp_path, folder)


def test_a_corrected_scheduler_does_not_go_on_with_stale_rows(command: Command) -> None:
    assert command.run("--limit", "1") == 0
    config(SCHEDULER, beta_end=0.02)(command.folder)
    with pytest.raises(SettingError, match=r"model_config\.scheduler\.beta_end was 0\.012 and is now 0\.02\."):
        command.run()
    config(SCHEDULER, beta_end=0.012, _diffusers_version="another")(command.folder)
    assert command.run() == 0
    assert len(all_rows(command.output, "data")) == 2


def test_an_output_of_an_earlier_version_goes_on(command: Command) -> None:
    assert command.run("--limit", "1", earlier=True) == 0
    assert command.run() == 0
    assert any("started by an earlier version" in line for line in command.said)
    rows = all_rows(command.output, "data")
    assert len(rows) == 2 and len({row["weights_sha256"] for row in rows}) == 1
    assert command.run(earlier=True) == 0  # its settings are those of the output
    with pytest.raises(SettingError, match="seed was 0 and is now 1"):
        command.run("--seed", "1")


def test_an_earlier_version_hashed_copies_that_nobody_loads(command: Command) -> None:
    copy_to(UNET, "unet/diffusion_pytorch_model.fp16.safetensors")(command.folder)
    everything = [
        (f"{part}/{path.name}", path)
        for part in ("unet", "vae", "text_encoder")
        for path in (command.folder / part).glob("*.safetensors")
    ]
    adapter = command.folder / "adapters" / "depth.safetensors"
    old = fingerprint(sorted([*everything, ("adapters/depth.safetensors", adapter)]))
    assert old != identity_of(command.folder).weights_sha256
    assert command.run("--limit", "1", earlier=True, weights_sha256=old) == 0
    assert command.run() == 0
    assert len(all_rows(command.output, "data")) == 2
    tensors = load_file(command.folder / UNET)
    save_file({**tensors, "conv_in.bias": tensors["conv_in.bias"] + 1}, command.folder / UNET)
    with pytest.raises(SettingError, match="weights_sha256 was"):
        command.run()


def test_a_lora_changes_rows_and_says_so(command: Command, tmp_path: Path) -> None:
    module = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"unet.{module}.lora.down.weight": torch.ones(2, 16), f"unet.{module}.lora.up.weight": torch.ones(16, 2)}
    save_file(tensors, tmp_path / "a.safetensors")
    lora = f"{tmp_path}/a.safetensors:0.5"
    assert command.run("--lora", lora, "--limit", "1") == 0
    (row,) = all_rows(command.output, "data")
    assert row["loras"] == "a.safetensors:0.5"
    assert row["weights_sha256"] != identity_of(command.folder).weights_sha256
    for other in ([], ["--lora", f"{tmp_path}/a.safetensors:0.6"], ["--lora", lora, "--lora", lora]):
        with pytest.raises(SettingError, match="loras was 'a.safetensors:0.5' and is now"):
            command.run(*other)
    assert command.run("--lora", lora) == 0


def test_loras_are_judged_before_anything_starts(tiny_folder: Path) -> None:
    with pytest.raises(SettingError, match=r"--lora: .*of the 3 tensors of .*kohya|--lora: A LoRA fits the base"):
        identity_of(tiny_folder, loras=((str(KOHYA), 1.0),))
