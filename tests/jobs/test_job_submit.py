"""`ray job submit` on a cluster of a head, a node with a GPU that only Ray assumes, and a node without."""

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.inputs import all_rows, samples, write_tar
from tests.support.paths import PROJECT_ROOT
from tests.support.ray_clusters import RAY, Cluster, cluster

WITH_GPU, WITHOUT = ("--num-cpus=2", "--num-gpus=1", '--resources={"gpu-node": 1}'), ("--num-cpus=2",)
LIMIT_S = 300


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster"), [WITH_GPU, WITHOUT], takes_jobs=True) as started:
        yield started


def ray(there: Cluster, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run `ray WORDS --address ...` in the root of the project."""
    command = [RAY, *words[:2], "--address", there.dashboard, *words[2:]]
    environment = {**there.process_environment(), "RAY_ADDRESS": there.dashboard}
    return subprocess.run(
        command,
        cwd=PROJECT_ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LIMIT_S,
    )


def submit(there: Cluster, *command: str, options: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    return ray(there, "job", "submit", "--working-dir", ".", *options, "--", "python", *command)


def actors_of_the_model(there: Cluster) -> list[dict[str, Any]]:
    """Return all actors that ever existed, with their nodes."""
    words = ("list", "actors", "--detail", "--format", "json", "--limit", "1000")
    shown = ray(there, *words).stdout
    return [actor for actor in json.loads(shown[shown.index("[") :]) if "_Model" in actor["class_name"]]


def node_with_the_gpu(there: Cluster) -> str:
    shown = ray(there, "list", "nodes", "--detail", "--format", "json").stdout
    (node,) = [node for node in json.loads(shown[shown.index("[") :]) if "gpu-node" in node["resources_total"]]
    return node["node_id"]


def test_a_submitted_job_uses_the_gpu_and_leaves_a_dataset(there: Cluster, tmp_path: Path) -> None:
    write_tar(tmp_path / "in.tar", samples(6))
    files = ["--input", str(tmp_path / "in.tar"), "--output", str(tmp_path / "out"), "--chunk-size", "2"]
    done = submit(there, "jobs/estimate_depth.py", *files, "--views", "1", "--actors", "1:2",
                  "--num-gpus-per-actor", "0.5")  # fmt: skip
    assert done.returncode == 0, done.stdout
    for line in (
        "6 samples in 1 shards",
        "3 chunks on 1 to 2 x 0.5 GPU",
        "6 of 6 samples: 6 rows in data/, 0 in errors/",
    ):
        assert line in done.stdout
    assert re.search(r"Job 'raysubmit_\w+' succeeded", done.stdout)
    assert Counter(row["key"] for row in all_rows(tmp_path / "out", "data")) == {f"{n:05d}": 1 for n in range(6)}
    nodes = {actor["node_id"] for actor in actors_of_the_model(there)} - {None}  # of one that found no room
    assert nodes == {node_with_the_gpu(there)}


@pytest.mark.slow
def test_an_output_that_would_go_with_the_job_is_refused(there: Cluster, tmp_path: Path) -> None:
    write_tar(tmp_path / "in.tar", samples(1))
    done = submit(there, "jobs/estimate_depth.py", "--input", str(tmp_path / "in.tar"), "--output", "out")
    assert done.returncode == 1
    assert "error: --output 'out' lies in the working directory that `ray job submit` uploaded" in done.stdout
    assert "exit code 2" in done.stdout


@pytest.mark.slow
def test_a_job_that_is_stopped_goes_on_when_submitted_again(there: Cluster, tmp_path: Path) -> None:
    write_tar(tmp_path / "in.tar", samples(40))
    output = tmp_path / "out"
    command = [str(PROJECT_ROOT / "tests" / "support" / "run_fake_job.py"), "0.3", "--input", str(tmp_path / "in.tar"),
               "--output", str(output), "--chunk-size", "4"]  # fmt: skip
    submit(there, *command, options=("--no-wait", "--submission-id", "to-be-stopped"))
    deadline = time.monotonic() + LIMIT_S
    while len(list(output.glob("_chunks/done/*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ray(there, "job", "stop", "to-be-stopped")
    log = ray(there, "job", "logs", "to-be-stopped").stdout
    assert "SIGTERM: stopped." in log and "the same command processes them" in log
    before = len(all_rows(output, "data"))
    assert 0 < before < 40
    assert submit(there, *command).returncode == 0
    assert Counter(row["key"] for row in all_rows(output, "data")) == {f"{n:05d}": 1 for n in range(40)}
