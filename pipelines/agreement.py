"""What keeps runs on one output at the same time from writing a sample twice.

A chunk's name holds its range, so two runs with two chunk sizes would publish the same samples under two names. Hence
the chunk size of an output is decided once, by whoever comes first, and later runs take it over: exclusive creation
locally, a conditional PUT on object stores. Chunks that two `--limit`s have cut differently lie one inside the other;
the run that sees both removes the inner one.
"""

import json
import os
import uuid
from collections.abc import Callable

from pipelines import layout, storage


def agree_on_chunk_size(output: str, wanted: int, say: Callable[[str], None]) -> int:
    """The recorded chunk size of an output; `wanted` becomes it when there is none. Says so when it is another."""
    uri = storage.join(output, "_chunks", "chunk-size.json")
    if not storage.exists(uri):
        create_once(uri, json.dumps({"chunk_size": wanted}).encode())
    recorded = int(json.loads(storage.read_bytes(uri))["chunk_size"])
    if recorded != wanted:
        say(
            f"chunks of {recorded} samples, as this output began; --chunk-size {wanted} is not used. One output has "
            f"one chunk size, so that runs at the same time never write a row twice. To change it, delete {uri} "
            "while no run works on this output."
        )
    return recorded


def doubled_files(published: layout.Published) -> list[str]:
    """URIs of finished chunks that lie inside another finished chunk of the same shard; marks last."""
    by_content: dict[tuple[str, str, str], list[layout.Mark]] = {}
    for mark in published.marks.values():
        name = mark.name
        by_content.setdefault((name.shard, name.fingerprint, name.configuration), []).append(mark)
    inner: list[layout.Mark] = []
    for marks in by_content.values():
        covered = -1
        for mark in sorted(marks, key=lambda mark: (mark.name.start, -mark.name.stop)):
            if mark.name.stop <= covered:
                inner.append(mark)
            covered = max(covered, mark.name.stop)
    files = [uri for mark in inner for uri in published.files.get(mark.name.text, [])]
    return [*files, *(mark.uri for mark in inner)]


def create_once(uri: str, content: bytes) -> None:
    """Publish a file unless there is one: of several at once, one creates it, whole, and the others leave it alone."""
    fs, path = storage.filesystem(uri)
    if storage.protocol(uri) == "file":
        return _create_local(path, content)
    try:
        fs.pipe_file(path, content, mode="create")
    except Exception:  # every driver has its own for "it is there"
        if not storage.exists(uri):
            raise


def _create_local(path: str, content: bytes) -> None:
    partial = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with open(partial, "wb") as file:
            file.write(content)
        os.link(partial, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not os.path.exists(path):
            storage.publish(path, content)
    finally:
        os.remove(partial)
