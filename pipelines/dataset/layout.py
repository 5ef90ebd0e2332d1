"""The output root: where files lie, what their names mean, what is finished.

    data/STEM.parquet            rows that succeeded; STEM.tar with --output-format webdataset
    errors/STEM.parquet          samples that did not
    _chunks/done/STEM            the mark, written last: this version of the chunk is finished
    _chunks/removed/STEM         its mark may say instead that it was removed: see pipelines/dataset/marks.py
    _chunks/index/               what planning learned about each tar, kept for the next run
    _chunks/runs/, plans/        what each run was, did and planned: see pipelines/runs/record.py
    _chunks/chunk-size.json, configuration.json    decided once for the output: see pipelines/planning/claims.py
    README.md, preview.png, report.html

STEM = NAME-OUTCOME.ok60.bad4. NAME is a function of the chunk: shard name, hash of the shard's URI, its fingerprint,
first and last position, configuration hash. OUTCOME is a hash of the positions that failed. Where some of these only
wait, because a file that they name could not be fetched for now, OUTCOME says which, and `.wait2` follows: two of the
four. So files never change:
doing a chunk again with the same outcome writes the same files, with another outcome it writes other files beside them,
and which version counts is decided by planning from the listing alone (`pipelines.planning.finished`).

Version 0.1 wrote data/NAME.parquet and _chunks/done/NAME.ok60.bad4 with shorter hashes; its outputs are read and
continued.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipelines import storage
from pipelines.chunk_names import OLD_MARK, OLD_NAME, STEM, ChunkName, version_stem, waiting_in
from pipelines.dataset.marks import is_marked, is_removed
from pipelines.errors import SettingError
from pipelines.samples import Chunk
from pipelines.storage.store import FILES, READING_THREADS, Store, map_concurrently
from pipelines.storage.uris import S3, check_given


class Version(NamedTuple):
    """A finished chunk, as one attempt has published it."""

    name: ChunkName
    stem: str
    """Of its files."""
    ok: int
    bad: int
    mark_uri: str
    files: tuple[str, ...]
    """URIs in data/ and errors/."""
    wait: int = 0
    """How many of the `bad` samples every run tries again, see `pipelines.errors.PassingError`."""

    @property
    def data_uri(self) -> str:
        """The file in data/; empty where no sample succeeded."""
        return self._file("data")

    @property
    def errors_uri(self) -> str:
        """The file in errors/; empty where no sample failed."""
        return self._file("errors")

    def _file(self, folder: str) -> str:
        return next((uri for uri in self.files if uri.rsplit("/", 2)[1] == folder), "")


@dataclass(kw_only=True)
class Remains:
    """Files of a version that is not finished: of an attempt that works or was killed, or damaged by hand."""

    name: ChunkName
    mark_uri: str
    """Where its mark would be; empty where it will have none: a version of 0.1, or one that was removed."""
    marks: list[str]
    files: list[str]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What lies in an output root."""

    finished: tuple[Version, ...]
    """Versions that are whole: one mark, with the files that it speaks of and no other."""
    remains: tuple[Remains, ...]
    """Everything else with a name of ours."""


def data_uri(output: str, stem: str, extension: str = "parquet") -> str:
    """Where the good rows of a version go."""
    return storage.join(output, "data", f"{stem}.{extension}")


def errors_uri(output: str, stem: str) -> str:
    """Where the failed samples of a version go."""
    return storage.join(output, "errors", f"{stem}.parquet")


def mark_uri(output: str, stem: str) -> str:
    """The file that says a version is finished."""
    return storage.join(output, "_chunks", "done", stem)


def run_uri(output: str, run: str) -> str:
    """The record of a run."""
    return storage.join(output, "_chunks", "runs", f"{run}.json")


def plan_uri(output: str, name: str) -> str:
    """What a run planned, by the name that its record gives."""
    return storage.join(output, "_chunks", "plans", name)


def is_published(output: str, chunk: Chunk, extension: str, store: Store = FILES) -> bool:
    """Whether a whole chunk has been published without failures, by another run perhaps. One or two requests."""
    stem = version_stem(chunk.name, chunk.stop - chunk.start, ())
    return is_marked(store, mark_uri(output, stem)) and store.exists(data_uri(output, stem, extension))


def list_output(output: str, store: Store = FILES) -> Listing:
    """List the output root; nothing is opened. What is listed is there to stay: a run may end on the strength of it."""
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
    """(URI, ok, bad); more than one where version 0.1 was killed during a retry: then none can be believed."""
    files: list[str] = field(default_factory=list)
    is_removed: bool = False
    """Whether the mark is a tombstone."""

    def version(self, stem: str) -> Version | None:
        """The finished version that they are, if they are one."""
        if len(self.marks) != 1:
            return None
        ((uri, ok, bad),) = self.marks
        wanted = (ok > 0) + (bad > 0)
        if ok + bad != self.name.stop - self.name.start or len(self.files) != wanted:
            return None
        folders = [file.rsplit("/", 2)[1] for file in self.files]  # as they were listed: data/ first
        if (ok and folders[0] != "data") or (bad and folders[-1] != "errors"):
            return None
        return Version(self.name, stem, ok, bad, uri, tuple(self.files), waiting_in(uri))

    def remains(self, output: str, stem: str) -> Remains:
        mark = "" if self.name.is_old or self.is_removed else mark_uri(output, stem)
        return Remains(name=self.name, mark_uri=mark, marks=[uri for uri, *_ in self.marks], files=self.files)


def _drop_tombstones(found: dict[str, _Found], removed: Iterable[str], store: Store) -> None:
    """Take tombstones for no marks; those beside which no files lie are of no more interest."""
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
"""Of an output root."""


def check_output(uri: str) -> str:
    """The output root, normalised. Raises SettingError where workers could not write."""
    check_given("--output", uri)
    output = storage.normalise(uri)
    if storage.protocol(output) == "memory":
        raise SettingError(f"--output {uri!r}: memory:// lives in one process and workers are others. Use a folder.")
    if storage.protocol(output) in S3 and "?versionId=" in output:
        raise SettingError(f"--output {uri!r}: on S3 ?versionId= asks for a version of a file. Rename it.")
    storage.check_writable("--output", uri, FOLDERS)
    if _goes_with_the_job(output):
        raise SettingError(
            f"--output {uri!r} lies in the working directory that `ray job submit` uploaded; the cluster deletes it "
            "with the job. Give an absolute path on a file system that all nodes share, or an object store."
        )
    return output


def _goes_with_the_job(output: str) -> bool:
    """Whether an output would be in the temporary working directory of a submitted job."""
    config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    is_uploaded = bool((config.get("runtime_env") or {}).get("working_dir"))
    return is_uploaded and Path(output).is_relative_to(Path.cwd())
