"""The committed output in `tests/golden/output`: its input in a bucket of a test server, and the command that made it.

Names of chunks are functions of the URI and the ETag of their shards, so the bucket and the keys are fixed. The input
has rows that succeed, an image that is damaged, a row for which the model fails, and a row whose image cannot be
fetched for now. `python -m tests.support.golden_output FOLDER` makes input and output again. Tested in
tests/pipelines/runs/test_existing_outputs.py.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from s3fs import S3FileSystem

from jobs import _cli, estimate
from pipelines import storage
from pipelines.runs import record, runner
from pipelines.runs.environment import Environment
from tests.support.fake_depth import FakeDepth
from tests.support.in_process import InProcess
from tests.support.inputs import encoded_image, write_tar
from tests.support.object_store import Fault, ObjectStore, Proxy, running_proxy, running_store
from tests.support.paths import PROJECT_ROOT
from tests.support.run_fake_job import identity

GOLDEN = PROJECT_ROOT / "tests" / "golden" / "output"
BUCKET = "s3://golden-output"
OPTIONS = ["--input", f"{BUCKET}/photos.tar", f"{BUCKET}/links.jsonl", "--chunk-size", "2"]
SETTINGS = ["--ensemble", "2", "--steps", "8", "--timestep-spacing", "leading", "--seed", "4"]
DAMAGED, FAILING, WAITING = "photo-2", "photo-3", "link-1"
"""Keys of the rows that do not succeed."""
UNAVAILABLE = "images/b.jpg"
"""The object that the server refuses to send for now."""


def write_input(folder: Path) -> None:
    """Write four samples in a tar, and two rows that name their images."""
    folder.mkdir(parents=True)
    members = {f"photo-{number}.jpg": encoded_image(number, (24, 16)) for number in range(4)}
    members[f"{DAMAGED}.jpg"] = members[f"{DAMAGED}.jpg"][:60]
    write_tar(folder / "photos.tar", sorted({**members, "photo-0.txt": b"a caption"}.items()))
    rows = [{"key": f"link-{at}", "image": f"{BUCKET}/images/{name}.jpg"} for at, name in enumerate("ab")]
    (folder / "links.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "images").mkdir()
    for number, name in enumerate("ab"):
        (folder / "images" / f"{name}.jpg").write_bytes(encoded_image(number, (24, 16)))


def upload(folder: Path, root: str) -> None:
    """Store the files of a folder below a URI."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        storage.publish(storage.join(root, path.relative_to(folder).as_posix()), path.read_bytes())


def run(output: str, *options: str, fails_while: str = "") -> tuple[int, list[str]]:
    """Run the command in this process; returns the exit code and what it said.

    The model fails for some rows while there is a file `fails_while`.
    """
    said: list[str] = []
    parsed: Namespace = estimate.parse([*OPTIONS, "--output", output, *SETTINGS, *options])
    job = estimate.task_run(parsed, identity("depth"), FakeDepth(fails_while=fails_while)).as_job()
    environment = Environment(
        executor=InProcess(), say=said.append, heartbeat=lambda beat: nullcontext(), afterwards=lambda output: None
    )
    return runner.run_job(job, _cli.request_of(parsed), environment), said


def run_as_committed(proxy: Proxy, output: str) -> tuple[int, list[str]]:
    """Run the command under the conditions under which the committed output was made."""
    fault = Fault("503", 1_000_000, UNAVAILABLE)
    proxy.faults.append(fault)
    try:
        return run(output, fails_while=__file__)
    finally:
        proxy.faults.remove(fault)


@contextmanager
def served(store: ObjectStore, inputs: Path) -> Iterator[Proxy]:
    """Inside, the input is in its bucket, and what cannot be had is not asked for again."""
    with running_proxy(store) as proxy:
        environment = {**store.environment(), "AWS_ENDPOINT_URL": proxy.endpoint, "AWS_MAX_ATTEMPTS": "1"}
        with mock.patch.dict("os.environ", environment), mock.patch.object(S3FileSystem, "retries", 1):
            S3FileSystem.clear_instance_cache()
            bucket, _ = storage.filesystem(BUCKET)
            if not bucket.exists(BUCKET):
                bucket.mkdir(BUCKET)
            upload(inputs, BUCKET)
            yield proxy
    S3FileSystem.clear_instance_cache()


def make(folder: Path, proxy: Proxy) -> None:
    """Write the output below a folder, without the preview. The record of the run names no machine."""
    host: dict[str, Any] = {"name": "localhost", "pid": 1, "system": "Linux", "cpus": 1, "memory_bytes": None}
    command = ["jobs/estimate.py", *OPTIONS, "--output", f"{BUCKET}/output", *SETTINGS]
    with mock.patch.object(record, "host", lambda: host), mock.patch.object(sys, "argv", command):
        code, said = run_as_committed(proxy, f"{BUCKET}/output")
    print(code, *said, sep="\n")
    for info in storage.list_files(f"{BUCKET}/output"):
        path = folder / info.uri.removeprefix(f"{BUCKET}/output/")
        if path.name != "preview.png":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(storage.read_bytes(info.uri))


def main(folder: Path) -> None:
    """Start a server, make the input and run the command on it."""
    write_input(folder / "input")
    with (
        TemporaryDirectory() as server,
        running_store(Path(server)) as store,
        served(store, folder / "input") as proxy,
    ):
        make(folder / "output", proxy)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
