"""Actors load the model that the driver found, with their share of the threads."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.runs.placement import choose_resources
from pipelines.runs.request import RunRequest
from pipelines.tasks.model import UniConModel, usable_cpus
from pipelines.tasks.model_identity import resolve_model
from tests.support.tiny import write_tiny_model

torch.set_num_threads(1)  # tiny models are slower on several threads, much slower beside other work
UNET = Path("unet", "diffusion_pytorch_model.safetensors")
SCHEDULER = Path("scheduler", "scheduler_config.json")


def test_actors_notice_another_model_and_hash_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    model, identity = resolve_model(UniConModel(model=str(folder), conditions=("depth",), device="cpu"))
    monkeypatch.setattr("unicon.files.hashes.file_sha256", None)
    assert model.build().weights_sha256 == identity.weights_sha256
    weights = (folder / UNET).read_bytes()
    tensors = load_file(folder / UNET)
    save_file({**tensors, "conv_in.bias": tensors["conv_in.bias"] + 1}, folder / UNET, metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match="other weights or configurations"):
        model.build()
    (folder / UNET).write_bytes(weights)
    scheduler = json.loads((folder / SCHEDULER).read_text())
    (folder / SCHEDULER).write_text(json.dumps(scheduler | {"beta_end": 0.02}))
    with pytest.raises(RuntimeError, match="other weights or configurations"):
        model.build()


def test_threads_are_those_of_the_actors_own_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The CPUs of that machine, not of the driver's, are divided by its actors, not by those of the cluster."""
    request = RunRequest(inputs=["x"], output="y", actors=10)
    resources = choose_resources(request, {"CPU": 80.0}, False, nodes=5)
    assert resources.actors_per_node == 2
    assert UniConModel(model="mini", conditions=()).with_device("cpu", 2).actors_per_node == 2
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr("pipelines.tasks.model.CPU_QUOTA", quota)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(16)))
    assert usable_cpus() == 16
    quota.write_text("max 100000\n")
    assert usable_cpus() == 16
    quota.write_text("400000 100000\n")
    assert usable_cpus() == 4
