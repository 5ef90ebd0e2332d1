"""The loose images of a folder, each with the `.txt` or `.json` file of the same name."""

from collections.abc import Iterator

from pipelines import storage
from pipelines.errors import SampleError, ShardChangedError
from pipelines.fields import json_caption, printable, text_of
from pipelines.references import fetch, read_ahead
from pipelines.samples import Chunk, ChunkFile, Columns, Sample
from pipelines.store import FILES, Store

MAX_TEXT_BYTES = 16 << 20


def read_folder(chunk: Chunk, columns: Columns, store: Store = FILES) -> Iterator[Sample]:
    """The images of a chunk, in order; those that have gone since planning come with that as their problem.

    Raises:
        OSError: the storage failed, or a file has changed since planning.
    """
    files = [(position, file) for position, file in enumerate(chunk.files) if not chunk.only or position in chunk.only]
    return read_ahead(lambda item: _sample(*item, chunk.shard_uri, columns, store), files, store)


def _sample(position: int, file: ChunkFile, folder: str, columns: Columns, store: Store) -> Sample:
    key = printable(file.uri.removeprefix(folder).lstrip("/"))
    content, problem = b"", None
    try:
        content = fetch(file.uri, store).content
    except SampleError as error:
        problem = error
    if not content and problem is None:
        problem = SampleError("read", "the image file is empty")
    caption = _caption(file, columns.caption, store)
    _check_unchanged(file, store)
    return Sample(
        position=position,
        key=key,
        image=content,
        image_name=key.rsplit("/", 1)[-1],
        caption=caption,
        problem=problem,
    )


def _caption(file: ChunkFile, wanted: str | None, store: Store) -> str:
    beside = {uri.rsplit(".", 1)[-1].lower(): uri for uri in file.sidecars}
    try:
        caption = text_of(store.read_bytes(beside["txt"], MAX_TEXT_BYTES)) if "txt" in beside else ""
        if not caption and "json" in beside:
            caption = json_caption(text_of(store.read_bytes(beside["json"], MAX_TEXT_BYTES)), wanted)
    except (FileNotFoundError, storage.TooLargeError):  # deleted since planning; no caption
        return ""
    return caption


def _check_unchanged(file: ChunkFile, store: Store) -> None:
    """Raises OSError where a file on a disk, or one beside it, is another than was planned; a missing one is not."""
    if not file.fingerprint or storage.protocol(file.uri) != "file":
        return
    found = [store.stat(uri) for uri in (file.uri, *file.sidecars)]
    there = [info.fingerprint for info in found if info is not None]
    if len(there) == len(found) and storage.short_hash(*there) != file.fingerprint:
        raise ShardChangedError(f"{file.uri} {storage.HAS_CHANGED}")
