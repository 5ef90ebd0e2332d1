"""A fault in which the object store becomes unavailable during a run and returns."""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random

from s3fs import S3FileSystem

from pipelines import storage
from tests.faults.work import Outcome, Work, finish, running, wait_for_moment, write_inputs
from tests.support.object_store import running_server

BUCKET = "s3://faults"
LONGEST_OUTAGE_S = 40.0
"""Longer than all attempts of one request together."""


def s3_outage(folder: Path, random: Random) -> Outcome:
    """Send SIGKILL to the S3 server of input and output, and restart it up to LONGEST_OUTAGE_S later."""
    server_folder = folder / "server"
    server_folder.mkdir(parents=True)
    with running_server(server_folder) as server, environment(server.store.environment()) as variables:
        work = _remote_work(folder, variables)
        with running(work) as process:
            wait_for_moment(random, work, process)
            server.kill()
            outage_s = random.uniform(1, LONGEST_OUTAGE_S)
            time.sleep(outage_s)
            server.start()
            return finish(work, process, {"outage s": round(outage_s, 1)})


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Set environment variables in this process, which also reads the output, and discard cached clients."""
    before = {name: os.environ.get(name) for name in variables}
    try:
        os.environ.update(variables)
        S3FileSystem.clear_instance_cache()
        yield variables
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        S3FileSystem.clear_instance_cache()


def _remote_work(folder: Path, variables: Mapping[str, str]) -> Work:
    images = write_inputs(folder / "in")
    filesystem, _ = storage.filesystem(BUCKET)
    filesystem.mkdir(BUCKET)
    filesystem.put(str(folder / "in"), f"{BUCKET}/in", recursive=True)
    shutil.rmtree(folder / "in")
    return Work(inputs=f"{BUCKET}/in", output=f"{BUCKET}/out", logs=folder, images=images, environment=variables)
