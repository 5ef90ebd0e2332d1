"""Finished versions of chunks, as a run would publish them, with placeholder files."""

import json
from collections.abc import Collection
from pathlib import Path

from pipelines.dataset import layout
from pipelines.samples import Chunk, version_stem
from pipelines.storage import files


def finish(output: Path | str, chunk: Chunk, failed: Collection[int] = ()) -> str:
    """Publish the chunk as finished, with these positions failed, and return its stem."""
    ok = chunk.stop - chunk.start - len(failed)
    stem = version_stem(chunk.name, ok, failed)
    if failed:
        files.publish(layout.errors_uri(str(output), stem), b"errors")
    if ok:
        files.publish(layout.data_uri(str(output), stem), b"rows")
    mark(output, stem, chunk)
    return stem


def mark(output: Path | str, stem: str, chunk: Chunk) -> None:
    """Write only the mark of a version."""
    content = {"shard": chunk.shard_uri, "files": {file.uri: file.fingerprint for file in chunk.files}}
    files.publish(layout.mark_uri(str(output), stem), json.dumps(content).encode())
