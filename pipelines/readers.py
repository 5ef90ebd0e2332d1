"""The samples of one chunk, whatever its shard's format; a sample that cannot be read comes with its problem."""

import json
from collections.abc import Iterator
from typing import Any

from pipelines import parquet_shards, storage, tar_shards
from pipelines.errors import SampleError
from pipelines.inputs import IMAGE_EXTENSIONS
from pipelines.samples import Chunk, Columns, Sample, Stored

CAPTION_FIELDS = ("caption", "text", "prompt")


def read_chunk(chunk: Chunk, columns: Columns) -> Iterator[Sample]:
    """The samples of the chunk, in order, one for each of `chunk.positions`.

    Raises:
        OSError: the storage failed, or the shard has changed since planning.
    """
    wanted = set(chunk.only) or None
    source = {"parquet": _parquet_samples, "folder": _folder_samples}.get(chunk.shard_format, _tar_samples)
    for sample in source(chunk, columns):
        if wanted is None or sample.position in wanted:
            yield sample
    if chunk.damage and (wanted is None or chunk.damage_position in wanted):
        yield damage_sample(chunk)


def damage_sample(chunk: Chunk) -> Sample:
    """The one sample that stands for the unreadable rest of a shard."""
    name = chunk.shard_uri.rsplit("/", 1)[-1]
    return Sample(position=chunk.damage_position, key=f"{name}#rest", problem=SampleError("shard", chunk.damage))


def _tar_samples(chunk: Chunk, columns: Columns) -> Iterator[Sample]:
    stop = chunk.damage_position if chunk.damage else chunk.stop
    compressed = chunk.shard_format == "tar.gz"
    groups = tar_shards.read_tar(chunk.shard_uri, compressed, chunk.start, stop, chunk.seek_position, chunk.seek_bytes)
    for position, key, members in groups:
        image = choose_member(members, columns.image)
        media = {name: named for name in columns.media if (named := choose_member(members, name)) is not None}
        problem = repeated_key(key) if position in chunk.duplicates else None
        if problem is None:
            problem = _missing_member(members, image, columns.image)
        for name in columns.media:
            problem = problem or _missing_member(members, media.get(name), name)
        yield Sample(
            position=position,
            key=key,
            image=_stored(image).content,
            image_name=_stored(image).name,
            caption=_tar_caption({member.extension: member for member in members}, columns.caption),
            media={name: _stored(member) for name, member in media.items()},
            problem=problem,
        )


def _stored(member: tar_shards.Member | None) -> Stored:
    return Stored(b"", "") if member is None else Stored(member.content or b"", member.name.rsplit("/", 1)[-1])


def choose_member(members: list[tar_shards.Member], wanted: str | None) -> tar_shards.Member | None:
    """The picture of a sample: the wanted extension, else the first of IMAGE_EXTENSIONS, else one like `seg.png`."""
    if wanted is not None:
        return next((member for member in members if member.extension == wanted.lower().lstrip(".")), None)
    ranked = [
        (member.extension.count("."), IMAGE_EXTENSIONS.index(last), order, member)
        for order, member in enumerate(members)
        if (last := member.extension.rsplit(".", 1)[-1]) in IMAGE_EXTENSIONS
    ]
    return min(ranked)[-1] if ranked else None


def repeated_key(key: str) -> SampleError:
    """The problem of the second sample of a key within a shard."""
    return SampleError("read", f"duplicate key: an earlier sample of this shard is called {key!r} too")


def _missing_member(
    members: list[tar_shards.Member], member: tar_shards.Member | None, wanted: str | None
) -> SampleError | None:
    """What is wrong with a picture's member, if anything; `wanted` is the extension that was asked for."""
    if member is None:
        found = ", ".join("." + member.extension for member in members)
        what = f"member .{wanted.lstrip('.')}" if wanted else "image member"
        return SampleError("read", f"no {what}: the sample has {found}")
    file = f".{member.extension} file" if wanted else "image file"
    if member.content is None:
        return SampleError("read", f"the {file} is larger than {tar_shards.MAX_MEMBER_BYTES} bytes")
    return None if member.content else SampleError("read", f"the {file} is empty")


def _tar_caption(members: dict[str, tar_shards.Member], wanted: str | None) -> str:
    """The named member or JSON field; by default the `.txt` member, else a usual field of the `.json` one."""
    for extension in (wanted, "txt", "caption"):
        if extension is not None and extension in members:
            return _text(members[extension].content)
    if "json" in members:
        return _json_caption(_text(members["json"].content), wanted)
    return ""


def _json_caption(text: str, wanted: str | None) -> str:
    try:
        fields = json.loads(text)
    except ValueError:
        return ""
    if not isinstance(fields, dict):
        return ""
    names = CAPTION_FIELDS if wanted is None else (wanted,)
    return next((fields[name] for name in names if isinstance(fields.get(name), str)), "")


def _text(content: bytes | None) -> str:
    return (content or b"").decode("utf-8", errors="replace").strip()


def _folder_samples(chunk: Chunk, columns: Columns) -> Iterator[Sample]:
    for position, file in enumerate(chunk.files):
        if chunk.only and position not in chunk.only:
            continue
        key = file.uri.removeprefix(chunk.shard_uri).lstrip("/")
        content = storage.read_bytes(file.uri)
        sidecars = {uri.rsplit(".", 1)[-1].lower(): uri for uri in file.sidecars}
        caption = _text(storage.read_bytes(sidecars["txt"])) if "txt" in sidecars else ""
        if not caption and "json" in sidecars:
            caption = _json_caption(_text(storage.read_bytes(sidecars["json"])), columns.caption)
        yield Sample(
            position=position,
            key=key,
            image=content,
            image_name=key.rsplit("/", 1)[-1],
            caption=caption,
            problem=None if content else SampleError("read", "the image file is empty"),
        )


def _parquet_samples(chunk: Chunk, columns: Columns) -> Iterator[Sample]:
    if chunk.damage:
        return
    _, schema = parquet_shards.count_rows(chunk.shard_uri)
    chosen = parquet_shards.choose_columns(schema, columns, chunk.shard_uri)
    stem = chunk.shard_uri.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    seen = set() if chosen.key is None else parquet_shards.earlier_keys(chunk.shard_uri, chosen.key, chunk.start)
    others = [name for name in columns.media if name != chosen.image]
    for (position, row), *values in zip(
        parquet_shards.read_rows(chunk.shard_uri, chosen, chunk.start, chunk.stop),
        *(_column(chunk, name) for name in others),
        strict=True,
    ):
        value = None if chosen.key is None else row[chosen.key]
        key = f"{stem}/{position:08d}" if value is None else str(value)
        pictures = {chosen.image: _stored_value(row[chosen.image])}
        pictures |= zip(others, map(_stored_value, values), strict=True)
        problem = None
        if chosen.key is not None and value is None:
            problem = SampleError("read", f"column {chosen.key} is null")
        elif value is not None and key in seen:
            problem = repeated_key(key)
        for name, (content, file_name) in pictures.items():
            if problem is None and not content:
                described = f" ({file_name})" if file_name else ""
                problem = SampleError("read", f"column {name} is null or empty{described}")
        seen.add(key)
        caption = row[chosen.caption] if chosen.caption is not None else None
        yield Sample(
            position=position,
            key=key,
            image=pictures[chosen.image].content,
            image_name=pictures[chosen.image].name,
            caption="" if caption is None else str(caption),
            media={name: pictures[name] for name in columns.media},
            problem=problem,
        )


def _column(chunk: Chunk, name: str) -> Iterator[Any]:
    """The values of one more column in the chunk's rows."""
    chosen = parquet_shards.ParquetColumns(image=name, key=None, caption=None)
    for _, row in parquet_shards.read_rows(chunk.shard_uri, chosen, chunk.start, chunk.stop):
        yield row[name]


def _stored_value(value: Any) -> Stored:
    if isinstance(value, dict):
        return Stored(value.get("bytes") or b"", str(value.get("path") or ""))
    return Stored(value or b"", "")
