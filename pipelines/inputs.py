"""What the user's `--input` means: URIs, globs, braces and folders become shards.

A shard is one tar, one Parquet file, or the loose images below one folder.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipelines import storage
from pipelines.errors import SettingError

IMAGE_EXTENSIONS = (
    *("jpg", "jpeg", "webp", "png", "tif", "tiff", "bmp", "gif", "jp2", "avif", "ppm", "pgm", "pbm", "tga", "ico"),
    *("jfif", "heic", "heif", "jxl"),
)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
SIDECAR_EXTENSIONS = ("txt", "json")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One input file, or the loose images of one folder."""

    uri: str
    format: str
    """`tar`, `tar.gz`, `parquet` or `folder`."""
    size_bytes: int
    fingerprint: str
    files: tuple[storage.FileInfo, ...] = ()
    """Folders only: images and their `.txt`, `.json` neighbours."""

    @property
    def stem(self) -> str:
        """The file's name without folders and extensions."""
        return self.uri.rstrip("/").rsplit("/", 1)[-1].split(".", 1)[0]


def find_shards(inputs: Iterable[str], exclude: str | None = None) -> list[Shard]:
    """All shards of the inputs in the order given, each once; what lies below `exclude` (the output) is left out.

    Raises:
        SettingError: an input that does not exist, matches nothing, or holds nothing we can read.
    """
    shards: dict[str, Shard] = {}
    loose: dict[str, dict[str, storage.FileInfo]] = {}
    for text in inputs:
        found = [entry for uri in _expand(text) for entry in _entries(uri, exclude)]
        if not any(isinstance(entry, Shard) or format_of(entry[1].uri) == "image" for entry in found):
            raise SettingError(
                f"--input {text!r} holds nothing to read. Rule: tars (.tar, .tar.gz, .tgz), Parquet files (.parquet) "
                f"or images ({', '.join(IMAGE_EXTENSIONS[:6])}, ...). Check the path, or the extension of the files."
            )
        for entry in found:
            if isinstance(entry, Shard):
                shards.setdefault(entry.uri, entry)
            else:
                loose.setdefault(entry[0], {})[entry[1].uri] = entry[1]
    folders = (_folder(root, list(files.values())) for root, files in loose.items())
    return [*shards.values(), *(folder for folder in folders if folder is not None)]


def expand_braces(text: str) -> list[str]:
    """`a{0..2}b` -> a0b, a1b, a2b and `{x,y}` -> x, y, as WebDataset spells shard ranges; leading zeros are kept."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", text)
    if match is None:
        return [text]
    first, last, words = match.groups()
    if words is not None:
        choices = words.split(",")
    else:
        choices = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return [text[: match.start()] + choice + rest for choice in choices for rest in expand_braces(text[match.end() :])]


def format_of(uri: str) -> str | None:
    """`tar`, `tar.gz`, `parquet`, `image`, or None for a file of no interest."""
    name = uri.rsplit("/", 1)[-1].lower()
    if name.endswith(".tar"):
        return "tar"
    if name.endswith(TAR_SUFFIXES):
        return "tar.gz"
    if name.endswith((".parquet", ".pq")):
        return "parquet"
    return "image" if name.rsplit(".", 1)[-1] in IMAGE_EXTENSIONS and "." in name else None


def _expand(text: str) -> list[str]:
    """The existing URIs that one `--input` names."""
    uri = storage.normalise(text)
    try:
        if storage.exists(uri):
            return [uri]
    except Exception as error:  # every storage driver has its own exceptions for "you may not" and "no such host"
        raise SettingError(
            f"--input {text!r} cannot be reached: {type(error).__name__}: {error}. Credentials and endpoints come from "
            "the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, FSSPEC_S3_ANON=true for public buckets, ...)."
        ) from error
    candidates = expand_braces(uri)
    found: list[str] = []
    for candidate in candidates:
        if re.search(r"[*?\[]", candidate):
            found += storage.glob_files(candidate)
        elif storage.exists(candidate):
            found.append(candidate)
        else:
            raise SettingError(
                f"--input {text!r}: there is nothing at {candidate}. Check the spelling; a relative path starts at the "
                "folder the command runs in, and a cluster's workers must be able to open it too."
            )
    return found


def _entries(uri: str, exclude: str | None) -> Iterator["Shard | tuple[str, storage.FileInfo]"]:
    """The shards at a URI, and its loose files as (folder they count as part of, file)."""
    inside_output = f"{exclude}/" if exclude is not None else None
    files = [
        file for file in storage.list_files(uri) if inside_output is None or not file.uri.startswith(inside_output)
    ]
    root = uri
    if any(file.uri[len(uri) :].startswith("/_chunks/") for file in files):  # an output root of ours: read its data/
        root = storage.join(uri, "data")
    folder = uri.rsplit("/", 1)[0] if len(files) == 1 and files[0].uri == uri else root
    for file in files:
        if not file.uri.startswith(root) or re.search(r"/[._]", file.uri[len(root) :]):
            continue
        kind = format_of(file.uri)
        if kind in ("tar", "tar.gz", "parquet"):
            yield Shard(uri=file.uri, format=kind, size_bytes=file.size_bytes, fingerprint=file.fingerprint)
        elif kind == "image" or file.uri.rsplit(".", 1)[-1].lower() in SIDECAR_EXTENSIONS:
            yield folder, file


def _folder(uri: str, files: list[storage.FileInfo]) -> Shard | None:
    if not any(format_of(file.uri) == "image" for file in files):
        return None
    ordered = tuple(sorted(files, key=lambda file: file.uri))
    listing = storage.short_hash(*(f"{file.uri} {file.fingerprint}" for file in ordered))
    size_bytes = sum(file.size_bytes for file in ordered)
    return Shard(uri=uri, format="folder", size_bytes=size_bytes, fingerprint=listing, files=ordered)
