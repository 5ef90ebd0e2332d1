"""The output root: where the files are, what their names mean, and what is finished.

    data/STEM.parquet            rows that succeeded; STEM.tar with --output-format webdataset
    errors/STEM.parquet          samples that failed
    _chunks/done/STEM            the mark, written last: this version of the chunk is finished
    _chunks/removed/STEM         this version may have been removed instead: see pipelines/dataset/marks.py
    _chunks/index/               what planning found out about each tar, for the next run
    _chunks/runs/, plans/        settings, results and plan of each run: see pipelines/runs/record.py
    _chunks/chunk-size.json, configuration.json    decided once per output: see pipelines/planning/claims.py
    README.md, preview.png, report.html

STEM = NAME-OUTCOME.ok60.bad4. NAME is a function of the chunk: shard name, hash of the shard's URI, its fingerprint,
first and last position, configuration hash. OUTCOME is a hash of the positions that failed. If some of these samples
are only waiting, because a file that they name could not be fetched for now, OUTCOME depends on which ones, and their
number follows: `.wait2` if two of the four are waiting; likewise `.filtered2` if a filter has removed two of them.
Therefore files never change: processing a chunk again writes the same files if the outcome is the same, and other files
beside them if it differs. Planning decides from the listing alone which version counts (`pipelines.planning.finished`).

Version 0.1 wrote data/NAME.parquet and _chunks/done/NAME.ok60.bad4 with shorter hashes; its outputs are read and
continued.

Tested in tests/pipelines/dataset/test_marks.py and tests/pipelines/planning/.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipelines import storage
from pipelines.dataset.marks import is_marked, is_removed
from pipelines.errors import SettingError
from pipelines.samples import OLD_MARK, OLD_NAME, STEM, Chunk, ChunkName, filtered_in, version_stem, waiting_in
from pipelines.storage.store import FILES, READING_THREADS, Store, map_concurrently
from pipelines.storage.uris import S3, check_given


class Version(NamedTuple):
    """A finished chunk, as one attempt published it."""

    name: ChunkName
    stem: str
    """Name of its files without extension."""
    ok: int
    bad: int
    mark_uri: str
    files: tuple[str, ...]
    """URIs in data/ and errors/."""
    wait: int = 0
    """How many of the `bad` samples every run tries again, see `pipelines.errors.PassingError`."""
    filtered: int = 0
    """How many of the `bad` samples a filter has removed, see `pipelines.errors.FILTER`."""

    @property
    def data_uri(self) -> str:
        """The file in data/; empty if no sample succeeded."""
        return self._file("data")

    @property
    def errors_uri(self) -> str:
        """The file in errors/; empty if no sample failed."""
        return self._file("errors")

    def _file(self, folder: str) -> str:
        return next((uri for uri in self.files if uri.rsplit("/", 2)[1] == folder), "")


@dataclass(kw_only=True)
class Remains:
    """Files of a version that is not finished: its attempt is at work or was killed, or a user deleted some."""

    name: ChunkName
    mark_uri: str
    """Where its mark would be; empty if it will have none: a version of 0.1, or one that was removed."""
    marks: list[str]
    files: list[str]
    is_removed: bool = False
    """Whether its mark is a tombstone: whatever is still written under its name is of no use to anybody."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The contents of an output root."""

    finished: tuple[Version, ...]
    """Complete versions: one mark, with exactly the files that it requires."""
    remains: tuple[Remains, ...]
    """Everything else that is named like a file of a version."""


def data_uri(output: str, stem: str, extension: str = "parquet") -> str:
    """The file for the successful rows of a version."""
    return storage.join(output, "data", f"{stem}.{extension}")


def errors_uri(output: str, stem: str) -> str:
    """The file for the failed samples of a version."""
    return storage.join(output, "errors", f"{stem}.parquet")


def mark_uri(output: str, stem: str) -> str:
    """The file that says that a version is finished."""
    return storage.join(output, "_chunks", "done", stem)


def run_uri(output: str, run: str) -> str:
    """The record of a run."""
    return storage.join(output, "_chunks", "runs", f"{run}.json")


def plan_uri(output: str, name: str) -> str:
    """The plan of a run, by the name in its record."""
    return storage.join(output, "_chunks", "plans", name)


def is_published(output: str, chunk: Chunk, extension: str, store: Store = FILES) -> bool:
    """Whether a whole chunk has been published without failures, perhaps by another run. One or two requests."""
    stem = version_stem(chunk.name, chunk.stop - chunk.start, ())
    return is_marked(store, mark_uri(output, stem)) and store.exists(data_uri(output, stem, extension))


def list_output(output: str, store: Store = FILES) -> Listing:
    """List the output root without reading rows. Listed files are durable, so a run may rely on them when it ends."""
    found: dict[str, _Found] = {}
    for uri in store.list_uris(storage.join(output, "_chunks", "done")):
        text = uri.rsplit("/", 1)[-1]
        match = STEM.fullmatch(text) or OLD_MARK.fullmatch(text)
        if match:
            stem = text if "outcome" in match.re.groupindex else match["name"]
            _entry(found, stem, match).marks.append((uri, int(match["ok"]), int(match["bad"])))
    removed = [uri.rsplit("/", 1)[-1] for uri in store.list_uris(storage.join(output, "_chunks", "removed"))]
    for folder in ("data", "errors"):
        for uri in store.list_uris(storage.join(output, folder)):
            stem = uri.rsplit("/", 1)[-1].rpartition(".")[0]
            if stem in found:
                found[stem].files.append(uri)
            elif match := STEM.fullmatch(stem) or OLD_NAME.fullmatch(stem):
                _entry(found, stem, match).files.append(uri)
    _drop_tombstones(found, removed, store)
    store.settle([storage.join(output, folder) for folder in ("_chunks/done", "data", "errors")])
    versions = {stem: entry.version(stem) for stem, entry in found.items()}
    return Listing(
        finished=tuple(version for version in versions.values() if version is not None),
        remains=tuple(found[stem].remains(output, stem) for stem, version in versions.items() if version is None),
    )


@dataclass
class _Found:
    """All files of one stem."""

    name: ChunkName
    marks: list[tuple[str, int, int]] = field(default_factory=list)
    """(URI, ok, bad); several if version 0.1 was killed during a retry, in which case none is valid."""
    files: list[str] = field(default_factory=list)
    is_removed: bool = False
    """Whether the mark is a tombstone."""

    def version(self, stem: str) -> Version | None:
        """The finished version that these files form, if they form one."""
        if len(self.marks) != 1:
            return None
        ((uri, ok, bad),) = self.marks
        wanted = (ok > 0) + (bad > 0)
        if ok + bad != self.name.stop - self.name.start or len(self.files) != wanted:
            return None
        folders = [file.rsplit("/", 2)[1] for file in self.files]  # in the order of the listing: data/ first
        if (ok and folders[0] != "data") or (bad and folders[-1] != "errors"):
            return None
        return Version(self.name, stem, ok, bad, uri, tuple(self.files), waiting_in(uri), filtered_in(uri))

    def remains(self, output: str, stem: str) -> Remains:
        mark = "" if self.name.is_old or self.is_removed else mark_uri(output, stem)
        marks = [uri for uri, *_ in self.marks]
        return Remains(name=self.name, mark_uri=mark, marks=marks, files=self.files, is_removed=self.is_removed)


def _drop_tombstones(found: dict[str, _Found], removed: Iterable[str], store: Store) -> None:
    """Do not count tombstones as marks; forget those without files."""
    named = [stem for stem in removed if stem in found and found[stem].marks]
    marks = [found[stem].marks[0][0] for stem in named]
    are_removed = map_concurrently(store, partial(is_removed, store), marks, READING_THREADS)
    for stem, has_tombstone in zip(named, are_removed, strict=True):
        if has_tombstone and not found[stem].files:
            del found[stem]
        elif has_tombstone:
            found[stem].marks, found[stem].is_removed = [], True


def _entry(found: dict[str, _Found], stem: str, match: re.Match[str]) -> _Found:
    if stem not in found:
        found[stem] = _Found(ChunkName.of(match))
    return found[stem]


FOLDERS = (
    "",
    "data",
    "errors",
    "_chunks",
    *(f"_chunks/{name}" for name in ("done", "removed", "runs", "plans", "index")),
)
"""Folders of an output root."""


def check_output(uri: str, option: str = "--output", folders: Sequence[str] = FOLDERS) -> str:
    """Return the normalized root of an output, or of another option with other folders.

    Raises:
        SettingError: workers could not write there.
    """
    check_given(option, uri)
    output = storage.normalize(uri)
    if storage.protocol(output) == "memory":
        raise SettingError(
            f"{option} {uri!r}: memory:// exists in one process, and workers are other processes. Use a folder."
        )
    if storage.protocol(output) in S3 and "?versionId=" in output:
        raise SettingError(f"{option} {uri!r}: on S3, ?versionId= selects a version of a file. Rename it.")
    storage.check_writable(option, uri, folders)
    if _goes_with_the_job(output):
        raise SettingError(
            f"{option} {uri!r} is in the working directory that `ray job submit` uploaded; the cluster deletes it "
            "with the job. Use an absolute path on a file system that all nodes share, or an object store."
        )
    return output


def _goes_with_the_job(output: str) -> bool:
    """Whether an output would be in the temporary working directory of a submitted job."""
    config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    is_uploaded = bool((config.get("runtime_env") or {}).get("working_dir"))
    return is_uploaded and Path(output).is_relative_to(Path.cwd())
