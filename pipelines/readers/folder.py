"""The loose images of a folder, each with the `.txt`, `.caption` or `.json` file of the same name."""

from collections.abc import Iterator

from pipelines import storage
from pipelines.errors import SampleError, ShardChangedError
from pipelines.readers.captions import Caption, decode_text, fallback, first_usable, json_caption
from pipelines.readers.references import fetch, read_ahead
from pipelines.readers.shards import SIDECAR_EXTENSIONS
from pipelines.samples import Chunk, ChunkFile, Columns, Sample
from pipelines.storage.store import FILES, Store
from pipelines.texts import printable

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
        caption=caption.text,
        caption_note=caption.note,
        problem=problem,
    )


def _caption(file: ChunkFile, wanted: str | None, store: Store) -> Caption:
    """The text or JSON of the image's name; with `wanted` the file of that extension, or that field of the JSON."""
    beside = {uri.rsplit(".", 1)[-1].lower(): uri for uri in file.sidecars}
    usual = (_caption_in(beside[kind], kind, None, store) for kind in SIDECAR_EXTENSIONS if kind in beside)
    if wanted is None or not beside:
        return first_usable(usual)
    kind = wanted.lower().lstrip(".")
    kind, field = (kind, None) if kind in beside else ("json", wanted)
    named = _caption_in(beside[kind], kind, field, store) if kind in beside else Caption()
    return named if named.text or named.note else fallback(first_usable(usual), wanted)


def _caption_in(uri: str, kind: str, wanted: str | None, store: Store) -> Caption:
    try:
        content = store.read_bytes(uri, MAX_TEXT_BYTES)
    except FileNotFoundError:  # deleted since planning; no caption
        return Caption()
    except storage.TooLargeError:
        return Caption("", f"the .{kind} file is larger than {MAX_TEXT_BYTES} bytes")
    text, note = json_caption(content, wanted) if kind == "json" else decode_text(content)
    return Caption(text, f"the .{kind} file: {note}" if note else "")


def _check_unchanged(file: ChunkFile, store: Store) -> None:
    """Raises OSError where a file on a disk, or one beside it, is another than was planned; a missing one is not."""
    if not file.fingerprint or storage.protocol(file.uri) != "file":
        return
    found = [store.stat(uri) for uri in (file.uri, *file.sidecars)]
    there = [info.fingerprint for info in found if info is not None]
    if len(there) == len(found) and storage.short_hash(*there) != file.fingerprint:
        raise ShardChangedError(f"{file.uri} {storage.HAS_CHANGED}")
