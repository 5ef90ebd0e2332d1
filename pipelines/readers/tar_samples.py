"""The samples of a tar's chunk: which member is the image, which is the caption, and what is wrong with them.

WebDataset's key ends at the first dot of a name, so the extension of `235 Track 2.0 (clean).jpg` is `0 (clean).jpg`.
Members whose names have more dots are distinguished by the text before their last extension, the stem.

Tested in tests/pipelines/readers/test_tar.py and test_captions.py.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from pipelines.errors import SampleError, clipped
from pipelines.images.containers import IMAGE_EXTENSIONS
from pipelines.readers.captions import (
    Caption,
    decode_text,
    fallback,
    first_usable,
    has_field,
    json_caption,
    json_fields,
)
from pipelines.readers.tar import Member, is_part_of_name, read_tar
from pipelines.samples import Chunk, Columns, EncodedImage, Sample, repeated_key
from pipelines.storage.store import FILES, Store

CAPTION_EXTENSIONS = ("txt", "caption", "json")


def read_tar_samples(chunk: Chunk, columns: Columns, store: Store = FILES) -> Iterator[Sample]:
    """Read the readable samples of a chunk in order.

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
        chunk.gzip_index_uri,
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
        image=_encoded(image).content,
        image_name=_encoded(image).name,
        caption=caption.text,
        caption_note=caption.note,
        media={name: _encoded(member) for name, member in media.items()},
        fields=_fields(members, columns.fields) if columns.fields else {},
        problem=problem,
    )


def choose_member(members: Sequence[Member], wanted: str | None) -> Member | None:
    """Return a sample's image: the wanted extension, the first of IMAGE_EXTENSIONS, or one such as `seg.png`."""
    if wanted is not None:
        return _named(members, wanted)
    return min(_images(members), key=_rank, default=None)


def _named(members: Sequence[Member], wanted: str) -> Member | None:
    """Return the member with an extension; in a name with more dots, the text before it must be part of a name."""
    wanted = wanted.lower().lstrip(".")
    exact = next((member for member in members if member.extension == wanted), None)
    if exact is not None:
        return exact
    ending = f".{wanted}"
    others = [member for member in members if member.extension.endswith(ending)]
    others = [member for member in others if is_part_of_name(member.extension.removesuffix(ending))]
    return others[0] if len(others) == 1 else None


def _is_wanted(extension: str, columns: Columns) -> bool:
    """Return whether a member's content may be used; large neighbors of images, such as videos, are skipped."""
    names = (columns.image, columns.caption, *columns.media, *columns.fields)
    named = [name.lower().lstrip(".") for name in names if name is not None]
    return _last(extension) in (*IMAGE_EXTENSIONS, *CAPTION_EXTENSIONS) or any(
        extension == name or extension.endswith(f".{name}") for name in named
    )


def _apart(problem: SampleError) -> SampleError:
    """Return the problem of a sample whose other members may be elsewhere in its tar."""
    return SampleError(
        problem.stage,
        f"{problem.reason}; an earlier sample of this shard has the same key: members of one sample must be "
        "neighbors, as in a tar packed with --sort=name",
    )


def _encoded(member: Member | None) -> EncodedImage:
    if member is None:
        return EncodedImage(b"", "")
    return EncodedImage(member.content or b"", member.name.rsplit("/", 1)[-1])


def _images(members: Sequence[Member]) -> list[Member]:
    return [member for member in members if _last(member.extension) in IMAGE_EXTENSIONS]


def _rank(member: Member) -> tuple[int, int]:
    return member.extension.count("."), IMAGE_EXTENSIONS.index(_last(member.extension))


def _missing_member(members: Sequence[Member], member: Member | None, wanted: str | None) -> SampleError | None:
    """Return what is wrong with an image's member, if anything; `wanted` is the requested extension."""
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
            "of a name, so pack separate images under names without more dots, unpack the tar (in a folder each "
            "file is an image of its own), or name one with --image-column",
        )
    file = f".{clipped(member.extension)} file" if wanted else "image file"
    if member.problem:
        return SampleError("read", f"the {file} {member.problem}")
    return None if member.content else SampleError("read", f"the {file} is empty")


def _caption(members: Sequence[Member], image: Member | None, wanted: str | None) -> Caption:
    """Return the named member or JSON field, otherwise the `.txt` member or a usual field of the `.json` member.

    Members with the image's name come first, then those with the key, then those with the image's name and extension.
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


def _fields(members: Sequence[Member], names: Sequence[str]) -> dict[str, Any]:
    """Return the named fields of the JSON members, and the texts of members with such an extension."""
    found: dict[str, Any] = {}
    for member in members:
        if member.content is None:
            continue
        if _last(member.extension) == "json":
            found |= json_fields(member.content, names)
        elif member.extension in names and _last(member.extension) not in IMAGE_EXTENSIONS:
            found[member.extension] = _plain(decode_text(member.content).text.strip())
    return found


def _plain(text: str) -> str | int | float:
    """Return the number that a text is, if it is written as usual; else the text."""
    for kind in (int, float):
        with suppress(ValueError):
            if str(kind(text)) == text and math.isfinite(kind(text)):
                return kind(text)
    return text


def has_caption(members: Sequence[Member], wanted: str) -> bool:
    """Return whether a sample has a file with the extension, or a JSON field, that `--caption-column` names."""
    ending = wanted.lower().lstrip(".")
    if any(f".{member.extension}".endswith(f".{ending}") for member in members):
        return True
    texts = (
        decode_text(member.content).text for member in members if member.content and _last(member.extension) == "json"
    )
    return any(has_field(text, wanted) for text in texts)


def _caption_in(member: Member, field: str | None = None) -> Caption:
    """Return the caption in a text or JSON member; of JSON the given field or a usual one."""
    if member.content is None:
        found = Caption("", member.problem)
    elif _last(member.extension) == "json":
        found = json_caption(member.content, field)
    else:
        found = decode_text(member.content)
    return Caption(found.text, f"the .{clipped(member.extension)} file: {found.note}" if found.note else "")


def _last(extension: str) -> str:
    return extension.rsplit(".", 1)[-1]
