"""The loose images of a folder, each with the `.txt`, `.caption` or `.json` file of the same name.

Tested in tests/pipelines/readers/test_chunks.py, test_captions.py and test_shards.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pipelines import storage
from pipelines.errors import SampleError, SettingError, ShardChangedError, printable
from pipelines.images.containers import is_image_name
from pipelines.readers.captions import (
    Caption,
    decode_text,
    fallback,
    first_usable,
    has_field,
    json_caption,
    json_fields,
)
from pipelines.readers.references import fetch, read_ahead
from pipelines.readers.shard_index import FOLDER_FORMAT, MeasuredShard, Shard
from pipelines.samples import Chunk, ChunkFile, Columns, Sample
from pipelines.storage.store import FILES, Store

SIDECAR_EXTENSIONS = ("txt", "caption", "json")
MAX_TEXT_BYTES = 16 << 20
CHECKED_FILES = 16
"""Number of JSON files that are checked for a caption that a setting names."""


class FolderFormat:
    """See `pipelines.readers.formats.ShardFormat`."""

    names: tuple[str, ...] = (FOLDER_FORMAT,)
    endings: Mapping[str, str] = {}
    describes: tuple[str, ...] = ()
    yields_to_others = False
    has_keys = False
    has_named_image = False
    has_predicates = False
    is_readable_before_damage = False

    def measure(self, shard: Shard, columns: Columns, output: str, store: Store) -> MeasuredShard:
        """Count the images of the listing."""
        return MeasuredShard.of(shard, None, sum(is_image_name(file.uri) for file in shard.files))

    def read(self, chunk: Chunk, columns: Columns, store: Store) -> Iterator[Sample]:
        """See `read_folder`."""
        return read_folder(chunk, columns, store)

    def check_media(self, shards: Sequence[Shard], options: Mapping[str, str], store: Store) -> None:
        """Refuse every folder: a loose image has no further images."""
        refuse_folders(shards, next(iter(options.values())))

    def check_image(self, shards: Sequence[Shard], wanted: str, store: Store) -> None:
        """Accept every folder, since `--image-column` has no effect there."""

    def check_caption(self, shards: Sequence[Shard], wanted: str, store: Store, option: str) -> bool:
        """Look for files with this extension, or this field in one of the first JSON files."""
        if shards and not _has_caption(shards, wanted, store):
            raise SettingError(
                f"{option} {wanted!r}: the images of {shards[0].uri} have no text of that name. Rule: the "
                f"extension of files beside images ({', '.join(SIDECAR_EXTENSIONS)}), or a field of their .json files. "
                "Correct the name, or leave it out."
            )
        return bool(shards)


FOLDER = FolderFormat()


def is_sidecar(uri: str) -> bool:
    """Return whether a file has an extension of the text files beside images."""
    return uri.rsplit(".", 1)[-1].lower() in SIDECAR_EXTENSIONS


def refuse_folders(shards: Sequence[Shard], option: str) -> None:
    """Raise SettingError if an option that needs tars or Parquet files was given with a folder."""
    folder = next((shard.uri for shard in shards if shard.is_folder), None)
    if folder is not None:
        raise SettingError(f"{option} needs tars or Parquet files; {folder} is a folder of loose images.")


def read_folder(chunk: Chunk, columns: Columns, store: Store = FILES) -> Iterator[Sample]:
    """Read the images of a chunk in order. An image that is gone since planning has that as its problem.

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
    fields = _fields(file, columns.fields, store) if columns.fields else {}
    _check_unchanged(file, store)
    return Sample(
        position=position,
        key=key,
        image=content,
        image_name=key.rsplit("/", 1)[-1],
        caption=caption.text,
        caption_note=caption.note,
        fields=fields,
        problem=problem,
    )


def _caption(file: ChunkFile, wanted: str | None, store: Store) -> Caption:
    """Read the text or JSON file with the image's name: the `wanted` extension, or the `wanted` field of the JSON."""
    beside = {uri.rsplit(".", 1)[-1].lower(): uri for uri in file.sidecars}
    usual = (_caption_in(beside[kind], kind, None, store) for kind in SIDECAR_EXTENSIONS if kind in beside)
    if wanted is None or not beside:
        return first_usable(usual)
    kind = wanted.lower().lstrip(".")
    kind, field = (kind, None) if kind in beside else ("json", wanted)
    named = _caption_in(beside[kind], kind, field, store) if kind in beside else Caption()
    return named if named.text or named.note else fallback(first_usable(usual), wanted)


def _fields(file: ChunkFile, names: Sequence[str], store: Store) -> dict[str, Any]:
    """Return the named fields of the JSON file with the image's name."""
    found: dict[str, Any] = {}
    for uri in file.sidecars:
        if uri.lower().endswith(".json"):
            with suppress(FileNotFoundError, storage.TooLargeError):  # deleted since planning, or no sidecar
                found |= json_fields(store.read_bytes(uri, MAX_TEXT_BYTES), names)
    return found


def _caption_in(uri: str, kind: str, wanted: str | None, store: Store) -> Caption:
    try:
        content = store.read_bytes(uri, MAX_TEXT_BYTES)
    except FileNotFoundError:  # deleted since planning: no caption
        return Caption()
    except storage.TooLargeError:
        return Caption("", f"the .{kind} file is larger than {MAX_TEXT_BYTES} bytes")
    text, note = json_caption(content, wanted) if kind == "json" else decode_text(content)
    return Caption(text, f"the .{kind} file: {note}" if note else "")


def _check_unchanged(file: ChunkFile, store: Store) -> None:
    """Raise ShardChangedError if an image on a disk, or a file beside it, is not the one that was planned.

    A missing file is accepted.
    """
    if not file.fingerprint or storage.protocol(file.uri) != "file":
        return
    found = [store.stat(uri) for uri in (file.uri, *file.sidecars)]
    there = [info.fingerprint for info in found if info is not None]
    if len(there) == len(found) and storage.short_hash(*there) != file.fingerprint:
        raise ShardChangedError(f"{file.uri} {storage.HAS_CHANGED}")


def _has_caption(folders: Sequence[Shard], wanted: str, store: Store) -> bool:
    """Return whether a folder has texts with this extension, or this field in one of the first JSON files."""
    texts = [file.uri for folder in folders for file in folder.files if not is_image_name(file.uri)]
    if any(uri.lower().endswith(f".{wanted.lower().lstrip('.')}") for uri in texts):
        return True
    fields = [uri for uri in texts if uri.lower().endswith(".json")]
    return any(_has_field(uri, wanted, store) for uri in fields[:CHECKED_FILES])


def _has_field(uri: str, wanted: str, store: Store) -> bool:
    try:
        return has_field(decode_text(store.read_bytes(uri, MAX_TEXT_BYTES)).text, wanted)
    except (FileNotFoundError, storage.TooLargeError):
        return False
