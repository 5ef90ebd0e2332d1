"""What the user's `--input` means: URIs, globs, braces and folders become shards.

A shard is one tar, one Parquet file, one file of JSON lines, or the loose images below one folder.
"""

import re
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from pipelines import storage
from pipelines.errors import SettingError
from pipelines.storage_errors import is_refusal
from pipelines.store import FILES, Store, map_concurrently
from pipelines.uris import Places, former_spelling

# fmt: off
IMAGE_EXTENSIONS = (
    "jpg", "jpeg", "webp", "png", "tif", "tiff", "bmp", "gif", "jp2", "avif", "ppm", "pgm", "pbm", "tga", "ico", "jfif",
    "heic", "heif", "jxl", "apng", "avifs", "blp", "bw", "cur", "dcx", "dds", "dib", "fit", "fits", "flc", "fli", "ftc",
    "ftu", "gbr", "icb", "icns", "iim", "im", "j2c", "j2k", "jpc", "jpe", "jpf", "jpx", "mpo", "msp", "pcd", "pcx",
    "pfm", "pnm", "psd", "pxr", "qoi", "ras", "rgb", "rgba", "sgi", "vda", "vst", "xbm", "xpm",
)
# fmt: on
"""What Pillow decodes, the usual ones first: of several pictures of a sample the first of these is meant."""
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
SIDECAR_EXTENSIONS = ("txt", "json")
LISTING_THREADS = 16
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
    """Folders only: images and their `.txt`, `.json` neighbours."""

    @property
    def stem(self) -> str:
        """The file's name without folders and extensions."""
        return self.uri.rstrip("/").rsplit("/", 1)[-1].split(".", 1)[0]


def find_shards(inputs: Iterable[str], exclude: str | None = None, store: Store = FILES) -> list[Shard]:
    """All shards of the inputs in the order given, each once; what lies below `exclude` (the output) is left out.

    In folders, names that begin with a dot or an underscore are left out; so are lists beside what they describe: a
    Parquet file called as the tar beside it, and JSON lines where one input has anything else. An output of ours means
    the rows in its data/. Where one input lies within another, the loose images of both are those of the outer one.

    Raises:
        SettingError: an input that does not exist or may not be read, matches nothing, or holds nothing we can read.
    """
    places = Places()
    output = None if exclude is None else storage.normalise(exclude)
    shards: dict[str, Shard] = {}
    loose: list[_Loose] = []
    for text in inputs:
        for root, file in _found(text, output, places, store):
            if shard_format(file.uri) is None:
                loose.append(_loose(root, file, places, text))
                continue
            shard = shard_of(file, shard_format, places, text)
            if not places.is_below(shard.uri, output):
                shards.setdefault(shard.uri, shard)
    return [*shards.values(), *_folders(loose)]


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


def expand_braces(text: str) -> list[str]:
    """`a{0..2}b` -> a0b, a1b, a2b and `{x,y}` -> x, y, as WebDataset spells shard ranges; leading zeros are kept."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", text)
    if match is None:
        return [text]
    first, last, words = match.groups()
    if words is not None:
        choices = words.split(",")
    else:
        step = 1 if int(first) <= int(last) else -1
        has_zeros = any(end.startswith("0") and len(end) > 1 for end in (first, last))
        digits = max(len(first), len(last)) if has_zeros else 0
        choices = [str(number).zfill(digits) for number in range(int(first), int(last) + step, step)]
    return [text[: match.start()] + choice + rest for choice in choices for rest in expand_braces(text[match.end() :])]


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


def _found(text: str, output: str | None, places: Places, store: Store) -> list[_Found]:
    """What one `--input` names."""
    try:
        named = [located for place in _places(text, store) for located in _files(*place, store)]
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not (is_refusal(error) or isinstance(error, FileNotFoundError)):
            raise  # the storage fails for now: the same command goes on
        if isinstance(error, SettingError):
            raise
        raise SettingError(f"--input {text!r} cannot be read: {error}") from error
    found = _without_lists([(root, file) for root, file in named if not places.is_below(file.uri, output)])
    if not any(format_of(file.uri) for _, file in found):
        raise SettingError(
            f"--input {text!r} holds nothing to read. Rule: tars (.tar, .tar.gz, .tgz), Parquet files (.parquet), "
            f"JSON lines (.jsonl) or images ({', '.join(IMAGE_EXTENSIONS[:6])}, ...). Check the path, or the "
            "extension of the files."
        )
    return found


def _places(text: str, store: Store) -> list[tuple[str, storage.FileInfo | None]]:
    """(URI, file; None for a folder) of all that one `--input` names; many names are looked up at once."""
    uri = storage.normalise(text)
    if not re.search(r"[*?\[{]", uri) or store.exists(uri):
        return [_place(uri, text, store)]
    found = map_concurrently(
        store,
        lambda name: store.glob_files(name) if re.search(r"[*?\[]", name) else [_place(name, text, store)],
        expand_braces(uri),
        LISTING_THREADS,
    )
    return [place for places in found for place in places]


def _place(name: str, text: str, store: Store) -> tuple[str, storage.FileInfo | None]:
    file = store.stat(name)
    if file is None and not store.exists(name):
        raise SettingError(
            f"--input {text!r}: there is nothing at {name}. Check the spelling; a relative path starts at the "
            "folder the command runs in, and a cluster's workers must be able to open it too."
        )
    return name, file


def _files(uri: str, file: storage.FileInfo | None, store: Store) -> list[_Found]:
    """What may be of use at a place."""
    if file is not None:
        return [(uri.rsplit("/", 1)[0], file)]
    files: list[storage.FileInfo] = []
    root = uri
    for found in store.iter_files(uri):
        below = found.uri[len(uri) :]
        if below.startswith("/_chunks/"):  # an output root of ours: read its data/
            root = storage.join(uri, "data")
        if not re.search(r"/[._]", below) and (format_of(found.uri) or _is_sidecar(found.uri)):
            files.append(found)
    return [(root, found) for found in sorted(files, key=lambda found: found.uri) if found.uri.startswith(f"{root}/")]


def _without_lists(found: list[_Found]) -> list[_Found]:
    formats = {file.uri: format_of(file.uri) for _, file in found}
    tars = {re.sub(r"(?i)\.(tar|tar\.gz|tgz)$", "", uri) for uri, kind in formats.items() if kind in ("tar", "tar.gz")}
    has_more = any(kind not in (None, "jsonl") for kind in formats.values())
    return [
        (folder, file)
        for folder, file in found
        if not (formats[file.uri] == "parquet" and file.uri.rsplit(".", 1)[0] in tars)
        and not (formats[file.uri] == "jsonl" and has_more)
    ]


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


def _folders(loose: list[_Loose]) -> Iterator[Shard]:
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
        if any(format_of(file.uri) == "image" for file in found):
            yield _folder(root, former[root], found)


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
