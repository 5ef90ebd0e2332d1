"""URIs: one spelling for one place.

A URI is a plain local path or anything fsspec understands. What differs between two spellings of one place is taken out
by `normalise`, links on local disks by `Places`.
"""

import os
import posixpath
import re
from collections.abc import Callable

from pipelines.errors import SettingError

# One PUT on these is atomic: readers see the old object or the new one, never a part.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "r2", "memory"})
S3 = frozenset({"s3", "s3a"})
WEB = frozenset({"http", "https"})
ALIASES = {"s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs"}
"""Scheme -> the scheme that names the same store."""
LOCAL = re.compile(r"(?i)(?:file|local):(?://(?:localhost(?=/))?|(?=/))")
ONE_SLASH = re.compile(
    rf"(?i)({'|'.join(sorted(OBJECT_STORES | WEB | {'hf', 'ftp', 'sftp', 'ssh', 'hdfs', 'webhdfs', 'smb'}))}):/(?!/)"
)
"""A URI that a program has taken for a path and shortened."""


def protocol(uri: str) -> str:
    """`"s3"` for `s3://...`, `"file"` for a path."""
    return uri.split("://", 1)[0] if "://" in uri else "file"


def normalise(uri: str) -> str:
    """One spelling for one place: absolute local paths, one scheme a store, no trailing slash on remote URIs."""
    if match := LOCAL.match(uri):
        uri = uri[match.end() :]
    elif "://" in uri:
        scheme, rest = uri.split("://", 1)
        scheme = scheme.lower()
        return f"{ALIASES.get(scheme, scheme)}://{rest.rstrip('/')}"
    path = os.path.abspath(os.path.expanduser(uri))
    return f"/{path.lstrip('/')}" if path.startswith("//") else path  # POSIX lets two leading slashes stand


def check_given(option: str, text: str) -> None:
    """Raises SettingError for what would mean another place than was meant: an empty path, half a URI."""
    if not text.strip():
        raise SettingError(
            f"{option} is empty. It takes a path or a URI; a shell variable that is not set gives an empty one. For "
            "the folder that the command runs in write a dot."
        )
    if match := ONE_SLASH.match(text):
        raise SettingError(
            f"{option} {text!r} has one slash after {match[1]}: and would be a folder of this machine. Write "
            f"{match[1]}://{text[match.end() :]}; a folder that is called so is ./{text}."
        )
    scheme, separator, rest = text.partition("://")
    if separator and protocol(normalise(text)) != "file" and not rest.strip("/"):
        raise SettingError(f"{option} {text!r} names no bucket or host. Write {scheme}://NAME/FOLDER.")


def former_spelling(uri: str, text: str) -> str:
    """How version 0.1 spelled a place that it found by `text`, given as `normalise` spells it.

    It knew no aliases of schemes and left two leading slashes alone.
    """
    if protocol(uri) != "file":
        return f"{protocol(text)}://{uri.split('://', 1)[1]}"
    path = text.removeprefix("file://")
    return f"/{uri}" if path.startswith("//") and not path.startswith("///") else uri


def join(root: str, *parts: str) -> str:
    """`root` and the parts below it, as one URI."""
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts)])


def resolve(reference: str, folder: str) -> str:
    """The URI that `reference` means in a file that lies in `folder`.

    Relative ones start in the folder, those that begin with a slash at the root of the disk or of the bucket.
    """
    if "://" in reference or LOCAL.match(reference):
        return normalise(reference)
    scheme, rest = folder.split("://", 1) if "://" in folder else ("", folder)
    if not scheme:
        return normalise(os.path.join(rest, reference))
    bucket, _, path = rest.partition("/")
    return f"{scheme}://{bucket}{posixpath.normpath(posixpath.join('/' + path, reference))}"


class Places:
    """Where normalised URIs lead, with the links of local disks followed. Remembers folders, not files."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def folder(self, uri: str) -> str:
        """A folder's own place."""
        if protocol(uri) != "file":
            return uri
        if uri not in self._folders:
            self._folders[uri] = os.path.realpath(uri)
        return self._folders[uri]

    def file(self, uri: str) -> str:
        """A file under its own name, which may be a link, in its folder's own place."""
        if protocol(uri) != "file":
            return uri
        folder, _, name = uri.rpartition("/")
        return f"{self.folder(folder or '/').rstrip('/')}/{name}"

    def shard(self, uri: str, is_shard: Callable[[str], bool]) -> str:
        """A file that may be a link: what the link leads to, if that has the name of a shard too.

        The cache of Hugging Face links names to nameless contents; there the link's own name counts.
        """
        if protocol(uri) == "file" and os.path.islink(uri):
            target = os.path.realpath(uri)
            if is_shard(target):
                return target
        return self.file(uri)

    def is_below(self, uri: str, folder: str | None) -> bool:
        """Whether a file lies below a folder, whatever way leads to either."""
        return folder is not None and self.file(uri).startswith(f"{self.folder(folder)}/")
