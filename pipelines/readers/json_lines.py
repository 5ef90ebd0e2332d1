"""JSON lines that name images: one object per line with the URI of an image and its caption.

    {"image": "photos/0001.jpg", "caption": "a red boat", "key": "boat-1"}

The image is the field `--image-column` or the first of URI_FIELDS; a path inside nested objects is written `a.b` or
`a.0`. A URI may point to any storage; a relative one starts at the folder of the file. The field may also hold the
image itself, in base64 or as a `data:` URI. Lines are read as a stream; empty ones do not count.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.errors import MisfitError, SampleError, ShardChangedError, clipped
from pipelines.images.signatures import kind_of
from pipelines.readers.captions import caption_of
from pipelines.readers.fields import KEY_FIELDS, found_fields, lookup, place_of
from pipelines.readers.parquet_columns import listed
from pipelines.readers.references import URI_FIELDS, read_ahead
from pipelines.readers.row_samples import assembled, named, read_named
from pipelines.readers.shard_index import INDEX_STRIDE, MeasuredShard, Shard, ShardIndex
from pipelines.samples import Chunk, Columns, EncodedImage, Sample, repeated_key
from pipelines.storage.damage import reason_of
from pipelines.storage.store import FILES, Store
from unicon.texts import unicode_encoding

MAX_LINE_BYTES = 64 << 20
CHECKED_LINES = 16
"""Number of objects at the beginning of a file of which one must have a named field; single ones may be damaged."""
FIELDS_OF_OBJECTS = ("bytes", "path", "url", "uri")
"""Fields of an object in which it holds an image, in base64, or names one."""
KINDS = {dict: "an object", list: "a list", bool: "a boolean", int: "a number", float: "a number"}
Line = tuple[int, bytes]
"""(byte offset, content)"""


def index_json_lines(uri: str, columns: Columns, store: Store = FILES) -> ShardIndex:
    """Count the lines, and find out where to enter and which keys repeat. Holds the keys of one file in memory.

    Raises:
        MisfitError: the file is not JSON lines, or none of the first objects has a named field.
    """
    keys: set[str] = set()
    seek_bytes: list[int] = []
    duplicates: list[int] = []
    first_objects: list[Any] = []
    samples = 0
    form = LinesForm()
    for offset_bytes, line in _lines(uri, 0, store):
        fields, _ = _parsed(line)
        form.add(line, fields is not None)
        if fields is not None and len(first_objects) < CHECKED_LINES:
            first_objects.append(fields)
        if samples % INDEX_STRIDE == 0:
            seek_bytes.append(offset_bytes)
        key, _ = _key(fields, columns.key)
        if key is not None:
            if key in keys:
                duplicates.append(samples)
            keys.add(key)
        samples += 1
    form.check(uri)
    roles = ("image", columns.image), ("key", columns.key), ("caption", columns.caption)
    wanted = [(f"--{role}-column", path) for role, path in roles]
    check_fields(first_objects, [*wanted, *(("column", path) for path in columns.fields)], uri)
    return ShardIndex(samples=samples, seek_bytes=tuple(seek_bytes), duplicates=tuple(duplicates))


@dataclass(kw_only=True)
class LinesForm:
    """Finds out whether a file is JSON lines at all: single lines may be damaged, but not all of them."""

    first: bytes = b""
    last: bytes = b""
    lines: int = 0
    understood: int = 0

    def add(self, line: bytes, is_understood: bool) -> None:
        """Add the next line."""
        self.first = self.first or line[:1000]
        self.last = line[:1000]
        self.lines += 1
        self.understood += is_understood

    def check(self, uri: str) -> None:
        """Raise MisfitError for one JSON array, as most programs write, and for files that are something else."""
        if encoding := wide_encoding(self.first):
            name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
            raise MisfitError(
                f"{uri} is {name}. Rule: JSON lines are UTF-8. Convert it: iconv -f {name} -t UTF-8 LINES > LINES.jsonl"
            )
        if self.understood == 0 and (kind := kind_of(self.first)):
            raise MisfitError(f"{uri} is {kind}. Rule: JSON lines are plain text, an object on each line.")
        in_brackets = self.understood == 0 or (self.understood == 1 and self.last == b"]")
        if self.first.startswith(b"[") and in_brackets:
            raise MisfitError(
                f"{uri} is one JSON array. Rule: JSON lines, an object on each line and nothing around them. "
                "Convert it: jq -c '.[]' ARRAY.json > LINES.jsonl"
            )
        if self.lines > 1 and self.understood == 0:
            begin = clipped(self.first.decode("utf-8", "surrogateescape"))
            raise MisfitError(
                f"{uri} is not JSON lines: none of its {self.lines} lines is a JSON object. Rule: an object on "
                f"each line, in UTF-8. It begins with: {begin}"
            )


def wide_encoding(line: bytes) -> str | None:
    """Return the UTF-16 or UTF-32 encoding that the first line of a file shows, or None."""
    encoding = unicode_encoding(line[: len(line) // 2 * 2])  # part of the line break may be missing
    return None if encoding == "utf-8" else encoding


def read_json_lines(chunk: Chunk, columns: Columns, store: Store = FILES) -> Iterator[Sample]:
    """Read the samples of a chunk in order and fetch their images.

    Raises:
        OSError: the storage failed, or the file has become shorter since planning.
    """
    return read_ahead(lambda item: _sample(*item, chunk, columns, store), _chunk_lines(chunk, store), store)


def _chunk_lines(chunk: Chunk, store: Store) -> Iterator[tuple[int, bytes]]:
    """Yield (position, line) for the wanted positions."""
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
    fields, reason = _parsed(line)
    folder, stem = place_of(chunk.shard_uri)
    name, problem = _key(fields, columns.key)
    key = f"{stem}/{position:08d}" if name is None else name
    if reason:
        problem = SampleError("read", reason)
    elif problem is None and name is not None and position in chunk.duplicates:
        problem = repeated_key(key)
    return assembled(
        position,
        key,
        (columns.image or "", *columns.media),
        lambda path: _image(fields, path, folder, store),
        lambda: caption_of(fields, columns.caption),
        problem,
        found_fields(fields, columns.fields),
    )


def _image(fields: Any, path: str, folder: str, store: Store) -> EncodedImage:
    stored = read_named(_reference(fields, path), folder, store)
    if not stored.content:
        raise SampleError("read", f"the image file {clipped(stored.name)} is empty")
    return stored


def _reference(fields: Any, path: str) -> str:
    """Return the URI or content in a parsed line, by default from URI_FIELDS. Raises SampleError if it has none."""
    odd = ""
    for name in (path,) if path else URI_FIELDS:
        value = lookup(fields, name)
        if isinstance(value, dict):
            value = next((value[inner] for inner in FIELDS_OF_OBJECTS if value.get(inner)), value)
        if isinstance(value, str):
            if value.strip():
                return value
        elif value is not None:
            odd = odd or f"the field {name} holds {KINDS[type(value)]}, not a URI or base64"
    there = clipped(", ".join(map(str, fields)), 110) if isinstance(fields, dict) else "no object"
    wanted = f"field {path}" if path else f"field of an image ({', '.join(URI_FIELDS[:4])}, ...)"
    raise SampleError("read", odd or f"no {wanted} with a URI: the line has {there}")


def _key(fields: Any, wanted: str | None) -> tuple[str | None, SampleError | None]:
    """Return (key, None), (None, None) if no key is wanted and none is there, or (None, why there is none)."""
    names = KEY_FIELDS if wanted is None else (wanted,)
    name, value = next(((name, found) for name in names if (found := lookup(fields, name)) is not None), ("", None))
    if value is None and wanted is None:
        return None, None
    return named(value, f"the field {wanted or name}", "is missing or null")


def _parsed(line: bytes) -> tuple[Any, str]:
    """Return (object, "") or (None, why the line is not an object)."""
    if len(line) > MAX_LINE_BYTES:
        return None, f"the line is longer than {MAX_LINE_BYTES} bytes"
    try:
        fields = loaded(line)
    except (ValueError, RecursionError) as error:
        return None, f"the line is not JSON: {reason_of(error)}"
    return (fields, "") if isinstance(fields, dict) else (None, "the line is not a JSON object")


def loaded(line: bytes) -> Any:
    """Return the value of a line. Bytes that are not UTF-8 become lone surrogates in its texts.

    Raises:
        ValueError: the line is not JSON.
        RecursionError: its objects are nested too deeply.
    """
    try:
        return json.loads(line)
    except UnicodeDecodeError:
        return json.loads(line.decode("utf-8", "surrogateescape"))


def check_fields(objects: list[Any], named: Sequence[tuple[str, str | None]], uri: str) -> None:
    """Raise MisfitError for the first (option, path) that none of the first objects of a file has."""
    for option, path in named:
        if path is None or not objects:
            continue
        if not any(lookup(fields, path) is not None or path.split(".", 1)[0] in fields for fields in objects):
            others = f" and the {len(objects) - 1} after it" if len(objects) > 1 else ""
            raise MisfitError(
                f"{option} {path!r} is not in the first line of {uri}{others}. Its fields: {listed(objects[0])}."
            )


def raw_lines(uri: str, offset_bytes: int, store: Store) -> Iterator[Line]:
    """Yield the lines from an offset on. A line longer than MAX_LINE_BYTES is cut one byte after that."""
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
    """Yield the lines that are not empty, without surrounding white space."""
    for at_bytes, line in raw_lines(uri, offset_bytes, store):
        content = line.strip(b"\xef\xbb\xbf \t\r\n") if at_bytes == 0 else line.strip()
        if content:
            yield at_bytes, content if len(line) <= MAX_LINE_BYTES else line


class JsonLinesFormat:
    """See `pipelines.readers.formats.ShardFormat`."""

    names: tuple[str, ...] = ("jsonl",)
    endings: Mapping[str, str] = {".jsonl": "jsonl", ".ndjson": "jsonl"}
    describes: tuple[str, ...] = ()
    yields_to_others = True
    has_keys = True
    has_named_image = True
    has_predicates = False
    is_readable_before_damage = False

    def measure(self, shard: Shard, columns: Columns, output: str, store: Store) -> MeasuredShard:
        """Read all lines of the file."""
        index = index_json_lines(shard.uri, columns, store)
        return MeasuredShard.of(shard, index, index.samples)

    def read(self, chunk: Chunk, columns: Columns, store: Store) -> Iterator[Sample]:
        """See `read_json_lines`."""
        return read_json_lines(chunk, columns, store)

    def check_media(self, shards: Sequence[Shard], options: Mapping[str, str], store: Store) -> None:
        """Accept every file; a line without such a field becomes an error row."""

    def check_image(self, shards: Sequence[Shard], wanted: str, store: Store) -> None:
        """Leave this to `measure`, which reads every line."""

    def check_caption(self, shards: Sequence[Shard], wanted: str, store: Store, option: str) -> bool:
        """Leave this to `measure`, which reads every line."""
        return False


JSON_LINES = JsonLinesFormat()
