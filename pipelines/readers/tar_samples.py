"""The samples of a tar's chunk: which member is the image, which the caption, and what is wrong with them.

WebDataset's key ends at the first dot of a name, so of `235 Track 2.0 (clean).jpg` the extension is `0 (clean).jpg`.
Members whose names have more dots are told apart by what stands before their last extension: its stem.
"""

from collections.abc import Iterator, Sequence

from pipelines.errors import SampleError
from pipelines.images.containers import IMAGE_EXTENSIONS
from pipelines.readers.captions import Caption, decode_text, fallback, first_usable, has_field, json_caption
from pipelines.readers.tar import Member, is_part_of_name, read_tar
from pipelines.samples import Chunk, Columns, Sample, Stored, repeated_key
from pipelines.storage.store import FILES, Store
from pipelines.texts import clipped

CAPTION_EXTENSIONS = ("txt", "caption", "json")


def read_tar_samples(chunk: Chunk, columns: Columns, store: Store = FILES) -> Iterator[Sample]:
    """The readable samples of a chunk, in order.

    Raises:
        OSError: the storage failed, or the tar has become shorter since planning.
    """
    stop = chunk.damage_position if chunk.damage else chunk.stop
    groups = read_tar(
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
        yield _sample(position, key, members, columns, is_repeated=position in chunk.duplicates)


def _sample(position: int, key: str, members: list[Member], columns: Columns, is_repeated: bool) -> Sample:
    image = choose_member(members, columns.image)
    media = {name: named for name in columns.media if (named := choose_member(members, name)) is not None}
    problem = _missing_member(members, image, columns.image)
    for name in columns.media:
        problem = problem or _missing_member(members, media.get(name), name)
    if is_repeated:
        problem = repeated_key(key) if problem is None else _apart(problem)
    caption = _caption(members, image or next(iter(media.values()), None), columns.caption)
    return Sample(
        position=position,
        key=key,
        image=_stored(image).content,
        image_name=_stored(image).name,
        caption=caption.text,
        caption_note=caption.note,
        media={name: _stored(member) for name, member in media.items()},
        problem=problem,
    )


def choose_member(members: Sequence[Member], wanted: str | None) -> Member | None:
    """The image of a sample: the wanted extension, else the first of IMAGE_EXTENSIONS, else one like `seg.png`."""
    if wanted is not None:
        return _named(members, wanted)
    return min(_images(members), key=_rank, default=None)


def _named(members: Sequence[Member], wanted: str) -> Member | None:
    """The member of an extension; in names with more dots what stands before it must be part of a name."""
    wanted = wanted.lower().lstrip(".")
    exact = next((member for member in members if member.extension == wanted), None)
    if exact is not None:
        return exact
    ending = f".{wanted}"
    others = [member for member in members if member.extension.endswith(ending)]
    others = [member for member in others if is_part_of_name(member.extension.removesuffix(ending))]
    return others[0] if len(others) == 1 else None


def _is_wanted(extension: str, columns: Columns) -> bool:
    """Whether a member's content may be used; large neighbors of images, such as videos, are passed over."""
    named = [name.lower().lstrip(".") for name in (columns.image, columns.caption, *columns.media) if name is not None]
    return _last(extension) in (*IMAGE_EXTENSIONS, *CAPTION_EXTENSIONS) or any(
        extension == name or extension.endswith(f".{name}") for name in named
    )


def _apart(problem: SampleError) -> SampleError:
    """The problem of a sample whose other members may be elsewhere in its tar."""
    return SampleError(
        problem.stage,
        f"{problem.reason}; an earlier sample of this shard has the same key: members of one sample must be "
        "neighbours, as in a tar packed with --sort=name",
    )


def _stored(member: Member | None) -> Stored:
    return Stored(b"", "") if member is None else Stored(member.content or b"", member.name.rsplit("/", 1)[-1])


def _images(members: Sequence[Member]) -> list[Member]:
    return [member for member in members if _last(member.extension) in IMAGE_EXTENSIONS]


def _rank(member: Member) -> tuple[int, int]:
    return member.extension.count("."), IMAGE_EXTENSIONS.index(_last(member.extension))


def _missing_member(members: Sequence[Member], member: Member | None, wanted: str | None) -> SampleError | None:
    """What is wrong with an image's member, if anything; `wanted` is the extension that was asked for."""
    if member is None:
        found = clipped(", ".join("." + member.extension for member in members))
        what = f"member .{wanted.lstrip('.')}" if wanted else "image member"
        return SampleError("read", f"no {what}: the sample has {found}")
    others = [other.extension for other in _images(members) if wanted is None and "." in member.extension]
    if len(others) > 1:
        found = clipped(", ".join("." + extension for extension in others[:8]))
        return SampleError(
            "read",
            f"no plain image member but {len(others)} others, none of them named: {found}; a key ends at the first dot "
            "of a name, so pack images of their own under names without more dots, unpack the tar (in a folder each "
            "file is an image of its own), or name one with --image-column",
        )
    file = f".{clipped(member.extension)} file" if wanted else "image file"
    if member.trouble:
        return SampleError("read", f"the {file} {member.trouble}")
    return None if member.content else SampleError("read", f"the {file} is empty")


def _caption(members: Sequence[Member], image: Member | None, wanted: str | None) -> Caption:
    """The named member or JSON field; else the `.txt` member, or a usual field of the `.json` one.

    Members that are called as the image come first, then those of the key, then those after the image's whole name.
    """
    if len(members) == 1 and image is not None:
        return Caption()
    by_extension = {member.extension: member for member in members}
    stems = [""] if image is None else [image.extension.rpartition(".")[0], "", image.extension]
    beside = [f"{stem}." if stem else "" for stem in dict.fromkeys(stems)]
    texts = [by_extension[stem + name] for stem in beside for name in CAPTION_EXTENSIONS if stem + name in by_extension]
    usual = first_usable(_caption_in(member) for member in texts)
    if wanted is None:
        return usual
    extension = wanted.lower().lstrip(".")
    named = [_caption_in(by_extension[stem + extension]) for stem in beside if stem + extension in by_extension]
    fields = [_caption_in(member, wanted) for member in texts if _last(member.extension) == "json"]
    found = first_usable([*named, *fields])
    return found if found.text or found.note else fallback(usual, wanted)


def has_caption(members: Sequence[Member], wanted: str) -> bool:
    """Whether a sample has what `--caption-column` names: a file of that extension, or a field of a JSON file."""
    ending = wanted.lower().lstrip(".")
    if any(f".{member.extension}".endswith(f".{ending}") for member in members):
        return True
    texts = (
        decode_text(member.content).text for member in members if member.content and _last(member.extension) == "json"
    )
    return any(has_field(text, wanted) for text in texts)


def _caption_in(member: Member, field: str | None = None) -> Caption:
    """What a member of text or JSON says; of JSON the field, else a usual one."""
    if member.content is None:
        found = Caption("", member.trouble)
    elif _last(member.extension) == "json":
        found = json_caption(member.content, field)
    else:
        found = decode_text(member.content)
    return Caption(found.text, f"the .{clipped(member.extension)} file: {found.note}" if found.note else "")


def _last(extension: str) -> str:
    return extension.rsplit(".", 1)[-1]
