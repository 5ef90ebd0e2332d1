"""URIs: one spelling for each place.

A URI is a plain local path or anything that fsspec understands. `normalize` removes the differences between spellings
of the same place, and `Places` resolves links on local disks.
"""

import os
import posixpath
import re
from collections.abc import Callable

from pipelines.errors import SettingError

# A PUT on these is atomic: readers see the old object or the new one, never a part of it.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "r2", "memory"})
S3 = frozenset({"s3", "s3a"})
WEB = frozenset({"http", "https"})
ALIASES = {"s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs"}
"""Scheme -> the other scheme for the same store."""
LOCAL = re.compile(r"(?i)(?:file|local):(?://(?:localhost(?=/))?|(?=/))")
ONE_SLASH = re.compile(
    rf"(?i)({'|'.join(sorted(OBJECT_STORES | WEB | {'hf', 'ftp', 'sftp', 'ssh', 'hdfs', 'webhdfs', 'smb'}))}):/(?!/)"
)
"""A URI whose double slash was shortened by a program that took it for a path."""


def protocol(uri: str) -> str:
    """Return the scheme of a URI: `"s3"` for `s3://...`, `"file"` for a path."""
    return uri.split("://", 1)[0] if "://" in uri else "file"


def normalize(uri: str) -> str:
    """Return the one spelling of a place: an absolute path, or a URI with one scheme per store and no final slash."""
    if match := LOCAL.match(uri):
        uri = uri[match.end() :]
    elif "://" in uri:
        scheme, rest = uri.split("://", 1)
        scheme = scheme.lower()
        return f"{ALIASES.get(scheme, scheme)}://{rest.rstrip('/')}"
    path = os.path.abspath(os.path.expanduser(uri))
    return f"/{path.lstrip('/')}" if path.startswith("//") else path  # POSIX keeps two leading slashes


def check_given(option: str, text: str) -> None:
    """Raise SettingError for texts that would name an unintended place: an empty path, or a part of a URI."""
    if not text.strip():
        raise SettingError(
            f"{option} is empty. It takes a path or a URI; a shell variable that is not set gives an empty one. For "
            "the current folder, write a dot."
        )
    if match := ONE_SLASH.match(text):
        raise SettingError(
            f"{option} {text!r} has one slash after {match[1]}: and would be a folder of this machine. Write "
            f"{match[1]}://{text[match.end() :]}; a folder with this name is ./{text}."
        )
    scheme, separator, rest = text.partition("://")
    if separator and protocol(normalize(text)) != "file" and not rest.strip("/"):
        raise SettingError(f"{option} {text!r} names no bucket or host. Write {scheme}://NAME/FOLDER.")


def former_spelling(uri: str, text: str) -> str:
    """Return how version 0.1 would have spelled a normalized place that was given as `text`.

    It did not know aliases of schemes and kept two leading slashes.
    """
    if protocol(uri) != "file":
        return f"{protocol(text)}://{uri.split('://', 1)[1]}"
    path = text.removeprefix("file://")
    return f"/{uri}" if path.startswith("//") and not path.startswith("///") else uri


def join(root: str, *parts: str) -> str:
    """Join `root` and parts below it to one URI."""
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts)])


def resolve(reference: str, folder: str) -> str:
    """Return the URI that `reference` means in a file in `folder`.

    Relative references start in the folder; those with a leading slash start at the root of the disk or bucket.
    """
    if "://" in reference or LOCAL.match(reference):
        return normalize(reference)
    scheme, rest = folder.split("://", 1) if "://" in folder else ("", folder)
    if not scheme:
        return normalize(os.path.join(rest, reference))
    bucket, _, path = rest.partition("/")
    return f"{scheme}://{bucket}{posixpath.normpath(posixpath.join('/' + path, reference))}"


class Places:
    """Resolves normalized URIs by following the links of local disks. Caches folders, not files."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def folder(self, uri: str) -> str:
        """Resolve the URI of a folder."""
        if protocol(uri) != "file":
            return uri
        if uri not in self._folders:
            self._folders[uri] = os.path.realpath(uri)
        return self._folders[uri]

    def file(self, uri: str) -> str:
        """Resolve the folder of a file, but keep the file's own name, which may be a link."""
        if protocol(uri) != "file":
            return uri
        folder, _, name = uri.rpartition("/")
        return f"{self.folder(folder or '/').rstrip('/')}/{name}"

    def shard(self, uri: str, is_shard: Callable[[str], bool]) -> str:
        """Resolve a file that may be a link, if the target has the name of a shard too.

        The cache of Hugging Face links file names to contents without names; there the link's own name counts.
        """
        if protocol(uri) == "file" and os.path.islink(uri):
            target = os.path.realpath(uri)
            if is_shard(target):
                return target
        return self.file(uri)

    def is_below(self, uri: str, folder: str | None) -> bool:
        """Return whether a file lies below a folder, whichever links lead to either."""
        return folder is not None and self.file(uri).startswith(f"{self.folder(folder)}/")
