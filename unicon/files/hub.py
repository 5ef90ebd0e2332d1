"""Repositories of the Hugging Face hub: names of models and adapters in it, and what of them is fetched."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

_HUB_ID = re.compile(
    r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(?:/(?P<inside>[\w./ -]+?))?/?(?:@(?P<revision>[\w./-]+))?", re.ASCII
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubId(NamedTuple):
    """OWNER/NAME, what is meant inside it ("" for its root), and a branch, tag or commit."""

    repository: str
    inside: str
    revision: str | None

    @property
    def text(self) -> str:
        """As it is written in a command."""
        name = f"{self.repository}/{self.inside}" if self.inside else self.repository
        return f"{name}@{self.revision}" if self.revision else name


def parse_hub_id(text: str) -> HubId | None:
    """OWNER/NAME, OWNER/NAME/INSIDE, each with @REVISION or without; None for a text that is no such name."""
    match = _HUB_ID.fullmatch(text)
    return HubId(match["repository"], match["inside"] or "", match["revision"]) if match else None


def expanded(place: str | Path) -> Path:
    """A path with `~` for the home folder, as it is where there is no such user or no home."""
    return Path(os.path.expanduser(place))


def is_there(path: Path) -> bool:
    """Whether a path exists; one that cannot be a path does not. Raises PermissionError where nobody may look."""
    try:
        path.stat()
    except PermissionError:
        raise
    except (OSError, ValueError):
        return False
    return True


def is_local(text: str) -> bool:
    """Whether a text is a path that exists, or can be nothing but a path. A path that exists wins over a hub id."""
    return is_there(expanded(text)) or parse_hub_id(text) is None


def commit_of(path: Path) -> str | None:
    """The commit of a file in the hub's cache, which lies in snapshots/COMMIT/."""
    parts = path.absolute().parts
    return next(
        (commit for above, commit in zip(parts, parts[1:], strict=False)
         if above == "snapshots" and _COMMIT.fullmatch(commit)), None
    )  # fmt: skip


Fetch = Callable[..., str]
"""`huggingface_hub.snapshot_download`: (repository, allow_patterns=, revision=) -> folder in the cache."""


def fetch_files(name: HubId, patterns: Sequence[str], what: str, fetch: Fetch | None = None) -> Path:
    """The cached folder of a repository, with the files of these patterns fetched where the hub can be reached.

    Raises:
        FileNotFoundError: it is not in the cache, and the hub cannot be reached or does not give it.
    """
    options = {"revision": name.revision} if name.revision else {}
    try:
        return Path((fetch or snapshot_download)(name.repository, allow_patterns=list(patterns), **options))
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        revision = f" at revision {name.revision!r}" if name.revision else ""
        refused = isinstance(error, HfHubHTTPError)
        why = f"the hub does not give it ({type(error).__name__})" if refused else (
            "the hub cannot be reached (HF_HUB_OFFLINE is set, or there is no network)"
        )  # fmt: skip
        raise FileNotFoundError(
            f"the {what} {name.repository!r}{revision} is neither here nor in the hub cache, and {why}. "
            "Correct the path or the id, log in, or fetch it where there is network."
        ) from error


def files_in_hub(name: HubId) -> list[str] | None:
    """Names of the files of a repository; None where the hub cannot be asked."""
    try:
        return HfApi().list_repo_files(name.repository, revision=name.revision)
    except (OSError, HFValidationError, httpx2.HTTPError):
        return None
