"""The samples of one chunk, whatever its shard's format; a sample that cannot be read comes with its problem."""

from collections.abc import Callable, Iterator

from pipelines import storage, tar_shards
from pipelines.damage import is_damage, reason_of
from pipelines.errors import SampleError, ShardChangedError
from pipelines.fields import clipped, json_caption, place_of, text_of
from pipelines.folder_shards import read_folder
from pipelines.inputs import IMAGE_EXTENSIONS
from pipelines.json_lines import read_json_lines
from pipelines.parquet_shards import read_parquet
from pipelines.samples import Chunk, Columns, Sample, Stored, repeated_key
from pipelines.store import FILES, Store

CAPTION_EXTENSIONS = ("txt", "caption", "json")


def read_chunk(chunk: Chunk, columns: Columns, store: Store = FILES) -> Iterator[Sample]:
    """The samples of the chunk, in order, one for each of `chunk.positions`.

    Raises:
        OSError: the storage failed, or the shard has changed since planning.
    """
    yield from checked(_samples(chunk, columns, planned(chunk, store)), chunk, store)


def planned(chunk: Chunk, store: Store) -> Store:
    """The store, in which the chunk's files must be those that were planned."""
    shard = {chunk.shard_uri: chunk.shard_fingerprint} if chunk.shard_fingerprint else {}
    return store.pinned({**shard, **{uri: version for file in chunk.files for uri, version in file.versions.items()}})


def checked(samples: Iterator[Sample], chunk: Chunk, store: Store) -> Iterator[Sample]:
    """The samples of a chunk; where reading breaks off at damaged content, those that are left come with the reason.

    Raises:
        OSError: after the last sample, its shard is another file than was planned, so that samples may be of either.
    """
    left = list(reversed(chunk.positions))
    try:
        for sample in samples:
            yield sample
            left.pop()
    except Exception as error:
        if not is_damage(error):
            raise
        problem = SampleError("read", f"the shard cannot be read any further: {reason_of(error)}")
        stem = place_of(chunk.shard_uri)[1]
        for position in reversed(left):
            yield Sample(position=position, key=f"{stem}/{position:08d}", problem=problem)
    if chunk.shard_fingerprint:
        now = store.stat(chunk.shard_uri)
        if now is None or now.fingerprint != chunk.shard_fingerprint:
            raise ShardChangedError(f"{chunk.shard_uri} {storage.HAS_CHANGED}")


def _samples(chunk: Chunk, columns: Columns, store: Store) -> Iterator[Sample]:
    wanted = set(chunk.only) or None
    for sample in _source(chunk)(chunk, columns, store):
        if wanted is None or sample.position in wanted:
            yield sample
    if chunk.damage and (wanted is None or chunk.damage_position in wanted):
        yield damage_sample(chunk)


def _source(chunk: Chunk) -> Callable[[Chunk, Columns, Store], Iterator[Sample]]:
    if chunk.damage and not chunk.shard_format.startswith("tar"):  # nothing of it can be read
        return lambda chunk, columns, store: iter(())
    sources = {"parquet": read_parquet, "folder": read_folder, "jsonl": read_json_lines}
    return sources.get(chunk.shard_format, _tar_samples)


def damage_sample(chunk: Chunk) -> Sample:
    """The one sample that stands for the unreadable rest of a shard."""
    name = chunk.shard_uri.rsplit("/", 1)[-1]
    return Sample(position=chunk.damage_position, key=f"{name}#rest", problem=SampleError("shard", chunk.damage))


def _tar_samples(chunk: Chunk, columns: Columns, store: Store) -> Iterator[Sample]:
    stop = chunk.damage_position if chunk.damage else chunk.stop
    groups = tar_shards.read_tar(
        chunk.shard_uri,
        chunk.shard_format == "tar.gz",
        chunk.start,
        stop,
        chunk.seek_position,
        chunk.seek_bytes,
        lambda extension: _is_wanted(extension, columns),
        chunk.gzip_points,
        store,
    )
    for position, key, members in groups:
        image = choose_member(members, columns.image)
        media = {name: named for name in columns.media if (named := choose_member(members, name)) is not None}
        problem = _missing_member(members, image, columns.image)
        for name in columns.media:
            problem = problem or _missing_member(members, media.get(name), name)
        if position in chunk.duplicates:
            problem = repeated_key(key) if problem is None else _apart(problem)
        yield Sample(
            position=position,
            key=key,
            image=_stored(image).content,
            image_name=_stored(image).name,
            caption=_tar_caption({member.extension: member for member in members}, columns.caption),
            media={name: _stored(member) for name, member in media.items()},
            problem=problem,
        )


def _is_wanted(extension: str, columns: Columns) -> bool:
    """Whether a member's content may be used; large neighbours of pictures, such as videos, are passed over."""
    named = {name.lower().lstrip(".") for name in (columns.image, columns.caption, *columns.media) if name is not None}
    return extension.rsplit(".", 1)[-1] in (*IMAGE_EXTENSIONS, *CAPTION_EXTENSIONS) or extension in named


def _apart(problem: SampleError) -> SampleError:
    """The problem of a sample whose other members may be elsewhere in its tar."""
    return SampleError(
        problem.stage,
        f"{problem.reason}; an earlier sample of this shard has the same key: members of one sample must be "
        "neighbours, as in a tar packed with --sort=name",
    )


def _stored(member: tar_shards.Member | None) -> Stored:
    return Stored(b"", "") if member is None else Stored(member.content or b"", member.name.rsplit("/", 1)[-1])


def choose_member(members: list[tar_shards.Member], wanted: str | None) -> tar_shards.Member | None:
    """The picture of a sample: the wanted extension, else the first of IMAGE_EXTENSIONS, else one like `seg.png`."""
    if wanted is not None:
        return next((member for member in members if member.extension == wanted.lower().lstrip(".")), None)
    return min(_pictures(members), key=_rank, default=None)


def _pictures(members: list[tar_shards.Member]) -> list[tar_shards.Member]:
    return [member for member in members if member.extension.rsplit(".", 1)[-1] in IMAGE_EXTENSIONS]


def _rank(member: tar_shards.Member) -> tuple[int, int]:
    return member.extension.count("."), IMAGE_EXTENSIONS.index(member.extension.rsplit(".", 1)[-1])


def _missing_member(
    members: list[tar_shards.Member], member: tar_shards.Member | None, wanted: str | None
) -> SampleError | None:
    """What is wrong with a picture's member, if anything; `wanted` is the extension that was asked for."""
    if member is None:
        found = clipped(", ".join("." + member.extension for member in members))
        what = f"member .{wanted.lstrip('.')}" if wanted else "image member"
        return SampleError("read", f"no {what}: the sample has {found}")
    others = [other.extension for other in _pictures(members) if wanted is None and "." in member.extension]
    if len(others) > 1:
        found = clipped(", ".join("." + extension for extension in others[:8]))
        return SampleError("read", f"no plain image member but {len(others)} others, none of them named: {found}")
    file = f".{member.extension} file" if wanted else "image file"
    if member.trouble:
        return SampleError("read", f"the {file} {member.trouble}")
    return None if member.content else SampleError("read", f"the {file} is empty")


def _tar_caption(members: dict[str, tar_shards.Member], wanted: str | None) -> str:
    """The named member or JSON field; by default the `.txt` member, else a usual field of the `.json` one."""
    for extension in (wanted, "txt", "caption"):
        if extension is not None and extension in members:
            return text_of(members[extension].content)
    return json_caption(text_of(members["json"].content), wanted) if "json" in members else ""
