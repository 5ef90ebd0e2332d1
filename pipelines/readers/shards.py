"""What the user's `--input` means: URIs, globs, braces and folders become shards.

A shard is one tar, one Parquet file, one file of JSON lines, or the loose images below one folder.
"""

import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from pipelines import storage
from pipelines.errors import SettingError
from pipelines.images.containers import IMAGE_EXTENSIONS
from pipelines.readers.places import LeftOut, Place, check_apart, named_places, outputs_beside_files, unwanted
from pipelines.readers.places import expand_braces as expand_braces
from pipelines.storage.errors import is_refusal
from pipelines.storage.store import FILES, Store
from pipelines.storage.uris import Places, check_given, former_spelling

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")


SIDECAR_EXTENSIONS = ("txt", "caption", "json")


BESIDE_TAR, BESIDE_DATA, NO_IMAGE = (
    "Parquet files beside a tar of the same name",
    "JSON lines beside other data",
    "texts without an image",
)
"""Why files of a known extension are left out."""


Tell = Callable[[str], None]


_Found = tuple[str, storage.FileInfo]
"""(folder that the file counts as part of if it is loose, file), as the input spells them"""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One input file, or the loose images of one folder."""

    uri: str
    """The same one whatever way leads to it: on local disks with links resolved."""
    format: str
    """`tar`, `tar.gz`, `parquet`, `jsonl` or `folder`."""
    size_bytes: int
    fingerprint: str
    modified_s: float | None = None
    """When it was last written, in seconds since 1970, of a folder its newest file; None where that is unknown."""
    former_uri: str = ""
    """How version 0.1 would have spelled `uri`; empty where it is the same."""
    files: tuple[storage.FileInfo, ...] = ()
    """Folders only: images and their neighbors of SIDECAR_EXTENSIONS."""

    @property
    def stem(self) -> str:
        """The file's name without folders and extensions."""
        return self.uri.rstrip("/").rsplit("/", 1)[-1].split(".", 1)[0]


def find_shards(
    inputs: Iterable[str], exclude: str | None = None, store: Store = FILES, tell: Tell | None = None
) -> list[Shard]:
    """All shards of the inputs in the order given, each once; what lies below `exclude` (the output) is left out.

    In folders, names that begin with a dot or an underscore are left out; so are lists beside what they describe: a
    Parquet file called as the tar beside it, and JSON lines where one input has anything else. An output of ours means
    the rows in its data/; outputs below an input are left out. Where one input lies within another, the loose images of
    both are those of the outer one.

    tell: gets one line that counts what is left out, if anything is.

    Raises:
        SettingError: an input that is empty, does not exist, may not be read or is the output, matches nothing, or
            holds nothing we can read.
    """
    places = Places()
    output = None if exclude is None else storage.normalise(exclude)
    left_out = LeftOut(
        is_own=lambda uri: output is not None and places.folder(uri) == places.folder(output),
        looks_for_links=tell is not None,
    )
    shards: dict[str, Shard] = {}
    loose: list[_Loose] = []
    for text, root, file in _found(list(inputs), output, places, store, left_out):
        if shard_format(file.uri) is None:
            loose.append(_loose(root, file, places, text))
            continue
        shard = shard_of(file, shard_format, places, text)
        if not places.is_below(shard.uri, output):
            shards.setdefault(shard.uri, shard)
    folders = list(_folders(loose, left_out))
    if tell is not None and (line := left_out.text()):
        tell(line)
    return [*shards.values(), *folders]


def shard_of(file: storage.FileInfo, format_by_name: Callable[[str], str | None], places: Places, text: str) -> Shard:
    """The shard that is one file, which the input `text` has led to."""
    uri = places.shard(file.uri, lambda name: format_by_name(name) is not None)
    former = former_spelling(file.uri, text)
    return Shard(
        uri=uri,
        format=format_by_name(uri) or "",
        size_bytes=file.size_bytes,
        fingerprint=file.fingerprint,
        modified_s=file.modified_s,
        former_uri="" if former == uri else former,
    )


def format_of(uri: str) -> str | None:
    """`tar`, `tar.gz`, `parquet`, `jsonl`, `image`, or None for a file of no interest."""
    name = uri.rsplit("/", 1)[-1].lower()
    if name.endswith(".tar"):
        return "tar"
    if name.endswith(TAR_SUFFIXES):
        return "tar.gz"
    if name.endswith((".parquet", ".pq")):
        return "parquet"
    if name.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    return "image" if name.rsplit(".", 1)[-1] in IMAGE_EXTENSIONS and "." in name else None


def shard_format(uri: str) -> str | None:
    """`format_of` a file that is a shard by itself, else None."""
    kind = format_of(uri)
    return None if kind == "image" else kind


@contextmanager
def reading(option: str, text: str) -> Iterator[None]:
    """Inside, a place that cannot be read is a wrong setting; a storage that fails for now is not."""
    try:
        yield
    except SettingError:
        raise
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not (is_refusal(error) or isinstance(error, FileNotFoundError)):
            raise  # the same command goes on
        raise SettingError(f"{option} {text!r} cannot be read: {error}") from error


def _found(
    inputs: list[str], output: str | None, places: Places, store: Store, left_out: LeftOut
) -> Iterator[tuple[str, str, storage.FileInfo]]:
    """(input, folder that the file counts as part of if it is loose, file) of what all inputs name."""
    named: list[tuple[str, list[Place]]] = []
    for text in inputs:
        check_given("--input", text)
        check_apart(text, "--input", output, places)
        with reading("--input", text):
            named.append((text, named_places(text, "--input", _is_of_use, store, left_out)))
    beside = outputs_beside_files([place for _, here in named for place in here], left_out)
    for text, places_of in named:
        here = [place for place in places_of if place.uri not in beside]
        found = [(place.root, file) for place in here for file in place.files if not places.is_below(file.uri, output)]
        found = _without_lists(found, left_out)
        if (here or not places_of) and not any(format_of(file.uri) for _, file in found):
            raise SettingError(
                f"--input {text!r} holds nothing to read. Rule: tars (.tar, .tar.gz, .tgz), Parquet files (.parquet), "
                f"JSON lines (.jsonl) or images ({', '.join(IMAGE_EXTENSIONS[:6])}, ...). Check the path, or the "
                f"extension of the files.{_also(left_out)}"
            )
        yield from ((text, root, file) for root, file in found)


def _also(left_out: LeftOut) -> str:
    text = left_out.text()
    return f" {text[0].upper()}{text[1:]}." if text else ""


def _is_of_use(uri: str) -> bool:
    return format_of(uri) is not None or _is_sidecar(uri)


def _without_lists(found: list[_Found], left_out: LeftOut) -> list[_Found]:
    formats = {file.uri: format_of(file.uri) for _, file in found}
    tars = {re.sub(r"(?i)\.(tar|tar\.gz|tgz)$", "", uri) for uri, kind in formats.items() if kind in ("tar", "tar.gz")}
    has_more = any(kind not in (None, "jsonl") for kind in formats.values())
    kept = []
    for folder, file in found:
        kind = formats[file.uri]
        name = file.uri.removeprefix(folder)
        if kind == "parquet" and file.uri.rsplit(".", 1)[0] in tars:
            left_out.add(BESIDE_TAR, name)
        elif kind == "jsonl" and has_more:
            left_out.add(BESIDE_DATA, name)
        elif kind is None and not _is_sidecar(file.uri):  # a pattern matches anything
            left_out.add(unwanted(name), name)
        else:
            kept.append((folder, file))
    return kept


def _is_sidecar(uri: str) -> bool:
    return uri.rsplit(".", 1)[-1].lower() in SIDECAR_EXTENSIONS


class _Loose(NamedTuple):
    """An image, or a file beside one."""

    root: str
    """The folder that the input names, with links resolved."""
    former_root: str
    file: storage.FileInfo
    """Spelled below `root`."""
    place: str
    """The same one whatever way leads to the file."""


def _loose(root: str, file: storage.FileInfo, places: Places, text: str) -> _Loose:
    own_root = places.folder(root)
    if own_root != root:
        file = replace(file, uri=f"{own_root}{file.uri[len(root) :]}")
    return _Loose(own_root, former_spelling(root, text), file, places.file(file.uri))


def _folders(loose: list[_Loose], left_out: LeftOut) -> Iterator[Shard]:
    """The folders of loose images: of folders within each other the outermost ones, each file once."""
    former = {each.root: each.former_root for each in reversed(loose)}
    homes = {root: _outermost(root, former) for root in former}
    files: dict[str, list[storage.FileInfo]] = {homes[each.root]: [] for each in loose}
    seen: set[str] = set()
    for each in sorted(loose, key=lambda each: each.root):  # a folder comes before those within it
        if each.place not in seen:
            seen.add(each.place)
            files[homes[each.root]].append(each.file)
    for root, found in files.items():
        _tell_texts_alone(root, found, left_out)
        if any(format_of(file.uri) == "image" for file in found):
            yield _folder(root, former[root], found)


def _tell_texts_alone(root: str, files: Iterable[storage.FileInfo], left_out: LeftOut) -> None:
    texts = [file.uri for file in files if _is_sidecar(file.uri)]
    if texts:
        found = [file.uri for file in files if format_of(file.uri) == "image"]
        images = {*found, *(uri.rsplit(".", 1)[0] for uri in found)}
        alone = [uri for uri in texts if uri.rsplit(".", 1)[0] not in images]
        left_out.add(NO_IMAGE, *(uri.removeprefix(root) for uri in alone[:1] or [""]), count=len(alone))


def _outermost(root: str, roots: Container[str]) -> str:
    """The first of the folders above a folder, or the folder itself, that is one of `roots`."""
    parts = root.split("/")
    above = ("/".join(parts[:count]) for count in range(1, len(parts)))
    return next((folder for folder in above if folder in roots), root)


def _folder(uri: str, former: str, files: list[storage.FileInfo]) -> Shard:
    ordered = tuple(sorted(files, key=lambda file: file.uri))
    listing = storage.short_hash(*(f"{file.uri} {file.fingerprint}" for file in ordered))
    times = [file.modified_s for file in ordered]
    return Shard(
        uri=uri,
        format="folder",
        size_bytes=sum(file.size_bytes for file in ordered),
        fingerprint=listing,
        modified_s=None if None in times else max(time for time in times if time is not None),
        files=ordered,
        former_uri="" if former == uri else former,
    )


def modified_since(shards: Sequence[Shard], moment: datetime) -> list[Shard]:
    """The shards whose file was written at or after `moment`, of loose pictures any file of the folder.

    Raises:
        SettingError: the storage does not tell when a shard was written.
    """
    unknown = next((shard.uri for shard in shards if shard.modified_s is None), None)
    if unknown is not None:
        raise SettingError(
            f"--since needs a storage that tells when its files were written; for {unknown} it does not. Leave the "
            "option out: what is finished is not done again anyway."
        )
    start_s = moment.timestamp()
    return [shard for shard in shards if shard.modified_s is not None and shard.modified_s >= start_s]
