"""JSON lines that name pictures: one object a line with the picture's URI and its caption.

    {"image": "photos/0001.jpg", "caption": "a red boat", "key": "boat-1"}

The picture is `--image-column` or the first of URI_FIELDS; a path inside nested objects is written `a.b`, `a.0`. A URI
may be of any storage; a relative one starts at the folder of the file. Lines are read as a stream; empty ones do not
count.
"""

import json
from collections.abc import Iterator
from typing import Any

from pipelines import storage
from pipelines.damage import is_damage, reason_of
from pipelines.errors import SampleError, SettingError, ShardChangedError
from pipelines.fields import KEY_FIELDS, caption_of, clipped, lookup, place_of, printable
from pipelines.references import URI_FIELDS, fetch, gather, read_ahead
from pipelines.samples import Chunk, Columns, Sample, Stored, repeated_key
from pipelines.store import FILES, Store
from pipelines.tar_shards import INDEX_STRIDE, TarIndex

MAX_LINE_BYTES = 16 << 20
CHECKED_LINES = 16
"""Objects at the beginning of a file of which one must have a named field: a single one may be damaged."""
Line = tuple[int, bytes]
"""(byte offset, content)"""


def index_json_lines(uri: str, columns: Columns, store: Store = FILES) -> TarIndex:
    """Count the lines, where to enter, and which keys come again. Memory: the keys of one file.

    Raises:
        SettingError: a named field is in none of the first objects.
    """
    keys: set[str] = set()
    seek_bytes: list[int] = []
    duplicates: list[int] = []
    first_objects: list[Any] = []
    samples = 0
    for offset_bytes, line in _lines(uri, 0, store):
        fields, _ = _parsed(line)
        if fields is not None and len(first_objects) < CHECKED_LINES:
            first_objects.append(fields)
        if samples % INDEX_STRIDE == 0:
            seek_bytes.append(offset_bytes)
        key = _key(fields, columns.key)
        if key is not None:
            if key in keys:
                duplicates.append(samples)
            keys.add(key)
        samples += 1
    _check_fields(first_objects, columns, uri)
    return TarIndex(samples=samples, seek_bytes=tuple(seek_bytes), duplicates=tuple(duplicates))


def read_json_lines(chunk: Chunk, columns: Columns, store: Store = FILES) -> Iterator[Sample]:
    """The samples of a chunk, in order, with their pictures fetched.

    Raises:
        OSError: the storage failed, or the file has become shorter since planning.
    """
    return read_ahead(lambda item: _sample(*item, chunk, columns, store), _chunk_lines(chunk, store), store)


def _chunk_lines(chunk: Chunk, store: Store) -> Iterator[tuple[int, bytes]]:
    """(position, line) of the wanted positions."""
    wanted = set(chunk.only)
    found = chunk.seek_position
    lines = _lines(chunk.shard_uri, chunk.seek_bytes, store)
    for position, (_, line) in enumerate(lines, chunk.seek_position):
        if position >= chunk.stop:
            return
        found = position + 1
        if position >= chunk.start and (not wanted or position in wanted):
            yield position, line
    if found < chunk.stop:
        raise ShardChangedError(
            f"{chunk.shard_uri} has changed while the job runs: it had {chunk.stop} lines or more, now {found}"
        )


def _sample(position: int, line: bytes, chunk: Chunk, columns: Columns, store: Store) -> Sample:
    try:
        return _understood(position, line, chunk, columns, store)
    except Exception as error:
        if not is_damage(error):
            raise
        key = f"{place_of(chunk.shard_uri)[1]}/{position:08d}"
        problem = SampleError("read", f"the line cannot be understood: {reason_of(error)}")
        return Sample(position=position, key=key, problem=problem)


def _understood(position: int, line: bytes, chunk: Chunk, columns: Columns, store: Store) -> Sample:
    fields, reason = _parsed(line)
    folder, stem = place_of(chunk.shard_uri)
    key = _key(fields, columns.key)
    problem = SampleError("read", reason) if reason else None
    if key is None and columns.key is not None:
        problem = problem or SampleError("read", f"the field {columns.key} is missing or null")
    if key is not None and position in chunk.duplicates:
        problem = repeated_key(key)
    paths = (columns.image or "", *columns.media)
    pictures, problem = gather(paths, lambda path: _picture(fields, path, folder, store), problem)
    image = pictures.get(paths[0], Stored(b"", ""))
    return Sample(
        position=position,
        key=key or f"{stem}/{position:08d}",
        image=image.content,
        image_name=printable(image.name),
        caption=caption_of(fields, columns.caption),
        media={path: pictures[path] for path in columns.media if path in pictures},
        problem=problem,
    )


def _picture(fields: Any, path: str, folder: str, store: Store) -> Stored:
    stored = fetch(storage.resolve(_reference(fields, path), folder), store)
    if not stored.content:
        raise SampleError("read", f"the image file {stored.name} is empty")
    return stored


def _reference(fields: Any, path: str) -> str:
    """The URI in a parsed line, by default in one of URI_FIELDS. Raises SampleError where there is none."""
    names = (path,) if path else URI_FIELDS
    value = next((found for name in names if (found := lookup(fields, name)) is not None), None)
    if isinstance(value, dict):
        value = value.get("path") or value.get("url") or value.get("uri")
    if isinstance(value, str) and value.strip():
        return value.strip()
    there = clipped(", ".join(map(str, fields))) if isinstance(fields, dict) else "no object"
    wanted = f"field {path}" if path else f"field of a picture ({', '.join(URI_FIELDS[:4])}, ...)"
    raise SampleError("read", f"no {wanted} with a URI: the line has {there}")


def _key(fields: Any, wanted: str | None) -> str | None:
    names = KEY_FIELDS if wanted is None else (wanted,)
    value = next((found for name in names if (found := lookup(fields, name)) is not None), None)
    try:
        return None if value is None else printable(str(value))
    except (ValueError, RecursionError):  # a number of too many digits, objects too deep within each other
        return None


def _parsed(line: bytes) -> tuple[Any, str]:
    """(object, "") or (None, why it is none)."""
    if len(line) > MAX_LINE_BYTES:
        return None, f"the line is longer than {MAX_LINE_BYTES} bytes"
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        return None, f"the line is no JSON: {reason_of(error)}"
    return (fields, "") if isinstance(fields, dict) else (None, "the line is no JSON object")


def _check_fields(objects: list[Any], columns: Columns, uri: str) -> None:
    for option, path in (("image", columns.image), ("key", columns.key), ("caption", columns.caption)):
        if path is None or not objects:
            continue
        if not any(lookup(fields, path) is not None or path.split(".", 1)[0] in fields for fields in objects):
            others = f" and the {len(objects) - 1} after it" if len(objects) > 1 else ""
            raise SettingError(
                f"--{option}-column {path!r} is not in the first line of {uri}{others}. Its fields: "
                f"{', '.join(objects[0])}."
            )


def raw_lines(uri: str, offset_bytes: int, store: Store) -> Iterator[Line]:
    """The lines from an offset on; of one that is longer than MAX_LINE_BYTES, one byte more than that."""
    with store.open_read(uri) as file:
        file.seek(offset_bytes)
        while line := file.readline(MAX_LINE_BYTES + 1):
            size_bytes = len(line)
            while not line.endswith(b"\n") and len(line) > MAX_LINE_BYTES and (rest := file.readline(1 << 20)):
                size_bytes += len(rest)
                if rest.endswith(b"\n"):
                    break
            yield offset_bytes, line
            offset_bytes += size_bytes


def _lines(uri: str, offset_bytes: int, store: Store) -> Iterator[Line]:
    """Those that are not empty, without the white space around them."""
    for at_bytes, line in raw_lines(uri, offset_bytes, store):
        content = line.strip(b"\xef\xbb\xbf \t\r\n") if at_bytes == 0 else line.strip()
        if content:
            yield at_bytes, content if len(line) <= MAX_LINE_BYTES else line
