"""The train_adapter command on a corpus: on Ray as without it, kills, workers, use of the adapters, wrong settings."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from jobs import _cli, train_adapter
from pipelines.errors import SettingError
from pipelines.training import run
from tests.support.corpora import write_corpus
from tests.support.corpus_training import command, dying, losses, prepared, train_plainly
from tests.support.images import square
from tests.support.paths import MINI, PROJECT_ROOT
from tests.support.tiny import write_tiny_model
from unicon import UniCon


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora") / "corpus"
    return write_corpus(folder, rows=24, image={20: {"bytes": b"no image", "path": "x"}})


@pytest.fixture(scope="module")
def plain(tiny: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training without Ray and without interruption."""
    root = tmp_path_factory.mktemp("plain")
    train_plainly(prepared(command(tiny, corpus, root)))
    return root


def are_close(one: Path, other: Path, most: float) -> bool:
    first, second = losses(one), losses(other)
    assert list(first) == list(second) == list(range(1, 11))
    return all(abs(first[step] - second[step]) <= most for step in first)


def test_a_killed_worker_goes_on_with_the_same_losses(
    tiny: Path, corpus: Path, plain: Path, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker dies in step 7; its successor begins at the checkpoint after step 4."""
    training = dying(prepared(command(tiny, corpus, tmp_path)), dies_at=7, mark=tmp_path / "died")
    assert run.run(training) == 0
    assert (tmp_path / "died").exists() and are_close(plain, tmp_path, 1e-5)
    told = capsys.readouterr().err
    assert "training with 1 worker, 10 steps" in told and "from step 4 of 10 on" in told
    assert "left out: 1 row: image is not an image that Pillow can read" in told
    one, other = (load_file(root / "adapters" / "canny.safetensors") for root in (plain, tmp_path))
    assert all(torch.allclose(one[name].float(), other[name].float(), atol=1e-3) for name in one)


def test_the_adapter_is_used_and_described(tiny: Path, plain: Path) -> None:
    folder = plain / "adapters"
    model = UniCon.from_pretrained(tiny, adapters={"canny": folder / "canny.safetensors"}, device="cpu")
    config = model.adapters["canny"]
    assert (config.kind, config.rank, config.trigger, config.annotator) == ("edge", 2, "edge_map, ", "canny")
    (edges,) = model.estimate([square((90, 60))], "canny", num_inference_steps=1)
    assert edges.shape == (60, 90) and np.isfinite(edges).all()
    assert (folder / "official" / "canny" / "model.pth").exists()
    assert (folder / "loss.svg").read_text().startswith("<svg xmlns=")
    card = (folder / "README.md").read_text()
    for text in ("canny made by | `controlnet-aux:canny`", "21 trained, 3 held out", "| batch_size | `4`", "| loss | "):
        assert text in card


def test_a_training_is_finished_only_once(tiny: Path, corpus: Path, plain: Path) -> None:
    before = losses(plain)
    events = train_plainly(prepared(command(tiny, corpus, plain)))
    assert events[0] == {"started": 10, "workers": 1} and losses(plain) == before


def test_a_loss_that_is_not_finite_names_the_rows(tiny: Path, tmp_path: Path) -> None:
    place = write_corpus(tmp_path / "corpus", rows=24, rating=dict.fromkeys(range(24), 3e38))
    events = train_plainly(prepared(command(tiny, place, tmp_path, "--weight-column", "rating")))
    assert "Losses and gradients are finite" in events[-1]["failure"] and "'row-0" in events[-1]["failure"]
    assert not (tmp_path / "adapters").exists()


@pytest.mark.slow
def test_two_workers_train_like_one(tiny: Path, corpus: Path, plain: Path, tmp_path: Path, ray_cluster: None) -> None:
    assert run.run(prepared(command(tiny, corpus, tmp_path, "--num-workers", "2"))) == 0
    assert are_close(plain, tmp_path, 1e-4)


@pytest.mark.slow
def test_a_killed_command_goes_on_with_another_number_of_workers(tiny: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    arguments = command(tiny, corpus, tmp_path, "--steps", "60", "--checkpoint-every", "10")
    words = [sys.executable, str(PROJECT_ROOT / "jobs" / "train_adapter.py"), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 240
    while not list((tmp_path / "work" / "training").glob("state-*.pt")) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < max(int(path.stem[6:]) for path in (tmp_path / "work" / "training").glob("state-*.pt")) < 60
    subprocess.run([*words, "--num-workers", "2"], env=environment, check=True, timeout=240)
    train_plainly(prepared([*arguments, "--work", str(tmp_path / "whole" / "work")]))
    first, second = losses(tmp_path), losses(tmp_path / "whole")
    assert list(first) == list(range(10, 61, 10)) and all(abs(first[step] - second[step]) < 1e-3 for step in first)


def told(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: train_adapter.main(arguments))
    assert exit_.value.code == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--condition", "canny"], "every adapter needs a name of its own; got canny, canny"),
        (["--condition", "other:image"], "neither its name nor the corpus says"),
        (["--condition", "edge=egde"], "'egde' is no kind of condition. The kinds: appearance, depth, edge"),
        (["--condition", "a b"], "expected NAME, NAME=KIND or NAME=KIND:COLUMN"),
        (["--condition", "pose"], "--condition pose: column pose is not in"),
        (["--condition", "depth", "--output", "a.safetensors"], "is one file, for 2 adapters. Give a folder"),
        (["--weight-column", "caption"], "weights are numbers of at least 0"),
        (["--annotator", "canny"], "--annotator is for --images; the conditions of a corpus are columns"),
        (["--device", "cuda:1"], "--device cuda:1: workers on a corpus use cuda"),
        (["--num-workers", "5"], "--num-workers 5: every worker needs a row of the batch of 4"),
        (["--num-workers", "3-2"], "'3-2' is not a number of workers; expected N or MIN-MAX"),
        (["--cache-latents"], "Add --no-random-crop, or leave it out"),
        (["--images", "photos"], "argument --images: not allowed with argument --corpus"),
        (["--work", "memory://work"], "--work 'memory://work': memory:// exists in one process"),
        (["--model", "absent/model/here"], "--model: A model is"),
        (["--start-from", "absent.safetensors"], "--start-from: An adapter is a .safetensors file"),
        (["--text-dropout", "0.5"], "fractions must lie in [0, 1]"),
    ],
)
def test_wrong_settings(
    tiny: Path, corpus: Path, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in told(capsys, command(tiny, corpus, tmp_path, *options))


def test_an_adapter_of_another_base_or_rank_is_refused(
    tiny: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["--start-from", f"canny={MINI / 'adapters' / 'edge.safetensors'}"]
    assert "--start-from" in told(capsys, command(tiny, corpus, tmp_path, *start))
    depth = ["--condition", "depth", "--start-from", f"depth={tiny / 'adapters' / 'depth.safetensors'}"]
    assert "has rank 4. Leave --rank out." in told(capsys, command(tiny, corpus, tmp_path, *depth))


def test_training_starts_from_another_adapter(tiny: Path, corpus: Path, tmp_path: Path) -> None:
    start = tiny / "adapters" / "depth.safetensors"
    words = command(tiny, corpus, tmp_path, "--steps", "1", "--learning-rate", "1e-9", "--start-from", str(start))
    words[words.index("--condition") + 1] = "depth"
    del words[words.index("--rank") : words.index("--rank") + 2]
    train_plainly(prepared(words))
    one, other = load_file(start), load_file(tmp_path / "adapters" / "depth.safetensors")
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name].float(), other[name].float(), atol=1e-3) for name in one)


def test_more_workers_than_there_is_room_for(
    tiny: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    training = prepared(command(tiny, corpus, tmp_path, "--num-workers", "3-4"))
    with pytest.raises(SettingError, match="needs half a CPU; this machine has CPUs for 2"):
        run.place(training, {"CPU": 1.0})
    on_gpus = replace(training, device="cuda")
    with pytest.raises(SettingError, match="needs a GPU; this machine has GPUs for 1"):
        run.place(on_gpus, {"CPU": 8.0, "GPU": 1.0})
    monkeypatch.setenv("RAY_ADDRESS", "auto")  # a cluster that may grow
    scaling, work = run.place(on_gpus, {"CPU": 8.0})
    assert (scaling.fewest, scaling.most, work.uses_gpus) == (3, 4, True)
    assert "waiting until the cluster has GPUs for 3 workers; it has 0 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rank", "4"], "'rank': (2, 4)"),
        (["--seed", "1"], "'seed': (0, 1)"),
        (["--where", "rating>=2"], "'corpus': ("),
        (["--steps", "9"], "'steps': (10, 9)"),
    ],
)
def test_another_training_in_the_same_folder_is_refused(
    tiny: Path, corpus: Path, plain: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in told(capsys, command(tiny, corpus, plain, *options))


def test_a_work_folder_of_something_else(
    tiny: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "settings.json").write_text('{"editor": "dark"}')
    assert "was not written by a training on a corpus" in told(capsys, command(tiny, corpus, tmp_path))
