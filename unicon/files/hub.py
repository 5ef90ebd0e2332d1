"""Repositories of the Hugging Face hub: parsing their ids, and fetching their files into the cache."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

_HUB_ID = re.compile(
    r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(?:/(?P<inside>[\w./ -]+?))?/?(?:@(?P<revision>[\w./-]+))?", re.ASCII
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubId(NamedTuple):
    """OWNER/NAME, a path inside the repository ("" for its root), and a branch, tag or commit."""

    repository: str
    inside: str
    revision: str | None

    @property
    def text(self) -> str:
        """The id as it is written in a command."""
        name = f"{self.repository}/{self.inside}" if self.inside else self.repository
        return f"{name}@{self.revision}" if self.revision else name


def parse_hub_id(text: str) -> HubId | None:
    """Parse OWNER/NAME or OWNER/NAME/INSIDE, optionally followed by @REVISION. None if the text is something else."""
    match = _HUB_ID.fullmatch(text)
    return HubId(match["repository"], match["inside"] or "", match["revision"]) if match else None


def expanded(place: str | Path) -> Path:
    """Expand `~` in a path. The path stays as it is where there is no such user or no home folder."""
    return Path(os.path.expanduser(place))


def is_there(path: Path) -> bool:
    """Whether a path exists. Text that cannot be a path does not exist.

    Raises:
        PermissionError: The permissions do not allow checking.
    """
    try:
        path.stat()
    except PermissionError:
        raise
    except (OSError, ValueError):
        return False
    return True


def is_local(text: str) -> bool:
    """Whether a text is an existing path, or cannot be a hub id. An existing path takes precedence over a hub id."""
    return is_there(expanded(text)) or parse_hub_id(text) is None


def commit_of(path: Path) -> str | None:
    """The commit of a file in the hub cache, where it is in snapshots/COMMIT/."""
    parts = path.absolute().parts
    return next(
        (commit for above, commit in zip(parts, parts[1:], strict=False)
         if above == "snapshots" and _COMMIT.fullmatch(commit)), None
    )  # fmt: skip


def fetch_files(name: HubId, patterns: Sequence[str], what: str) -> Path:
    """Fetch the files of a repository that match the patterns, and return the repository's folder in the cache.

    Raises:
        FileNotFoundError: The repository is not in the cache, and the hub cannot be reached or refuses it.
    """
    options: dict[str, Any] = {"revision": name.revision} if name.revision else {}
    try:
        return Path(snapshot_download(name.repository, allow_patterns=list(patterns), **options))
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        revision = f" at revision {name.revision!r}" if name.revision else ""
        refused = isinstance(error, HfHubHTTPError)
        why = f"the hub refuses it ({type(error).__name__})" if refused else (
            "the hub cannot be reached (HF_HUB_OFFLINE is set, or there is no network)"
        )  # fmt: skip
        raise FileNotFoundError(
            f"the {what} {name.repository!r}{revision} is neither here nor in the hub cache, and {why}. "
            "Correct the path or the id, log in, or fetch it where there is network."
        ) from error


def files_in_hub(name: HubId) -> list[str] | None:
    """Names of the files of a repository; None where the hub cannot be reached."""
    try:
        return HfApi().list_repo_files(name.repository, revision=name.revision)
    except (OSError, HFValidationError, httpx2.HTTPError):
        return None
