"""The Slurm script, executed with fake srun, scontrol and ray programs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkers import BIN, DEPLOY, options_of, run_checker


def test_shellcheck_accepts_the_slurm_script() -> None:
    run_checker(BIN / "shellcheck", "--severity", "style", DEPLOY / "slurm/run.sbatch")


SRUN = """
import os, signal, subprocess, sys
options = dict(word.split("=", 1) for word in sys.argv[1:] if word.startswith("--") and "=" in word)
words = sys.argv[1:]
while words[0].startswith("--"):
    words.pop(0)
nodes = options.get("--nodelist", "node1,node2,node3").split(",")
assert len(nodes) == int(options["--nodes"]), (nodes, options)
children = [subprocess.Popen(words, env={**os.environ, "SLURMD_NODENAME": node}) for node in nodes]
signal.signal(signal.SIGTERM, lambda *_: [child.terminate() for child in children])
sys.exit(max(child.wait() for child in children))
"""
SCONTROL = """
import os, sys
if sys.argv[1] == "show":
    print("node1\\nnode2\\nnode3")
else:
    open(os.environ["STUB"] + "/log", "a").write(" ".join(sys.argv[1:]) + "\\n")
"""
RAY_COMMAND = """
import os, pathlib, signal, sys, time
node, stub = os.environ["SLURMD_NODENAME"], pathlib.Path(os.environ["STUB"])
if node in os.environ.get("STUB_DEAD", "").split():
    sys.exit("node is out of order")
assert "RAY_ADDRESS" not in os.environ and len(os.environ["RAY_AUTH_TOKEN"]) == 64
assert "--head" in sys.argv or (stub / "up" / "node1").exists(), "a worker before the head"
(stub / "up" / node).write_text(" ".join(sys.argv[1:]))
with open(stub / "log", "a") as log:
    log.write(f"start {node} {' '.join(sys.argv[1:])}\\n")
try:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    time.sleep(60)
finally:
    (stub / "up" / node).unlink()
"""
RAY_MODULE = """
import os, pathlib
def init(**_):
    assert os.environ["RAY_ADDRESS"] == "10.0.0.1:24242"
def nodes():
    return [{"Alive": True} for _ in (pathlib.Path(os.environ["STUB"]) / "up").iterdir()]
"""
COMMAND = """
import os, signal, sys, time
assert os.environ["RAY_ADDRESS"] == "10.0.0.1:24242" and len(os.listdir(os.environ["STUB"] + "/up")) == 3
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
open(os.environ["STUB"] + "/began", "w").close()
time.sleep(float(sys.argv[1]))
sys.exit(int(sys.argv[2]))
"""


class Slurm:
    """An allocation of three nodes that are all this machine, with small fakes of the programs of Slurm and Ray."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        (folder / "up").mkdir()
        (folder / "ray.py").write_text(RAY_MODULE)
        (folder / "command.py").write_text(COMMAND)
        for name, text in {"srun": SRUN, "scontrol": SCONTROL, "ray": RAY_COMMAND}.items():
            (programs / name).write_text(f"#!{sys.executable}\n{text}")
        (programs / "getent").write_text('#!/bin/sh\necho "127.0.1.1 STREAM node1"\necho "10.0.0.1 STREAM node1"\n')
        (programs / "python").symlink_to(sys.executable)
        for path in programs.iterdir():
            if not path.is_symlink():
                path.chmod(0o755)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "UNICON", "RAY"))},
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "STUB": str(folder),
            "SLURM_JOB_ID": "34242",
            "SLURM_JOB_NODELIST": "node[1-3]",
            "SLURM_CPUS_PER_TASK": "32",
        }
        self.script: subprocess.Popen[str] | None = None

    def start(self, *command: str, **environment: str) -> "subprocess.Popen[str]":
        """Run the script with a command, as sbatch does."""
        self.script = subprocess.Popen(
            ["bash", str(DEPLOY / "slurm/run.sbatch"), *command],
            env={**self.environment, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.script

    def run(self, *command: str, **environment: str) -> tuple[int, str]:
        """Run the script to its end, and return its exit code and messages."""
        script = self.start(*command, **environment)
        _, messages = script.communicate(timeout=60)
        return script.returncode, messages

    def command(self, seconds: float = 0, code: int = 0) -> list[str]:
        """Return a command that checks that all of Ray is up, sleeps and exits; SIGTERM ends it with 143."""
        return ["python", str(self.folder / "command.py"), str(seconds), str(code)]

    def wait_until_the_command_runs(self) -> None:
        deadline = time.monotonic() + 30
        while not (self.folder / "began").exists():
            assert time.monotonic() < deadline, "the command never ran"
            time.sleep(0.05)

    @property
    def log(self) -> list[str]:
        """Return the calls of ray and scontrol."""
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def up(self) -> list[str]:
        """Return the nodes on which Ray is running."""
        return [path.name for path in (self.folder / "up").iterdir()]


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    """Create an allocation, and end what the script leaves behind."""
    slurm = Slurm(tmp_path)
    yield slurm
    if slurm.script and slurm.script.poll() is None:
        slurm.script.terminate()
        slurm.script.communicate(timeout=30)


@pytest.mark.parametrize("code", [0, 3])
def test_slurm_runs_the_command_on_all_nodes_and_passes_its_exit_code(slurm: Slurm, code: int) -> None:
    returned, messages = slurm.run(*slurm.command(code=code))
    assert returned == code, messages
    assert slurm.log[0].startswith("start node1 start --block --num-cpus=32 --temp-dir=/tmp/ray-34242 --head")
    assert "--node-ip-address=10.0.0.1 --port=24242" in slurm.log[0]
    assert sorted(line.split()[1] for line in slurm.log[1:]) == ["node2", "node3"]
    assert all(line.endswith("--address=10.0.0.1:24242") for line in slurm.log[1:])
    assert {word.split("=")[0] for line in slurm.log for word in line.split() if word[:2] == "--"} <= options_of(
        "start"
    )
    assert slurm.up == []


def test_slurm_gives_up_if_a_node_does_not_join(slurm: Slurm) -> None:
    code, messages = slurm.run(*slurm.command(), STUB_DEAD="node3", UNICON_WAIT_S="8")
    assert code == 1 and "2 of 3 nodes have joined Ray" in messages
    assert not (slurm.folder / "began").exists() and slurm.up == []


def test_slurm_gives_up_immediately_if_the_head_fails(slurm: Slurm) -> None:
    code, messages = slurm.run(*slurm.command(), STUB_DEAD="node1")
    assert code == 1 and "Ray has exited on node1" in messages and "node is out of order" in messages


@pytest.mark.parametrize(
    ("number", "restarts", "requeued"),
    [(signal.SIGUSR1, "0", True), (signal.SIGUSR1, "20", False), (signal.SIGTERM, "0", False)],
    ids=["near the time limit", "too many restarts", "cancelled"],
)
def test_slurm_stops_the_command_and_queues_it_again(
    slurm: Slurm, number: signal.Signals, restarts: str, requeued: bool
) -> None:
    script = slurm.start(*slurm.command(seconds=60), SLURM_RESTART_COUNT=restarts)
    slurm.wait_until_the_command_runs()
    script.send_signal(number)
    _, messages = script.communicate(timeout=30)
    assert script.returncode == 143 and slurm.up == [], messages
    assert ("requeue 34242" in slurm.log) is requeued


def test_slurm_requires_a_command(slurm: Slurm) -> None:
    code, messages = slurm.run()
    assert code == 2 and "no command" in messages and slurm.log == []
