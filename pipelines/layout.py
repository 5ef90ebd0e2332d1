"""The output root: where files lie, what their names mean, what is finished.

    data/STEM.parquet            rows that succeeded; STEM.tar with --output-format webdataset
    errors/STEM.parquet          samples that did not
    _chunks/done/STEM            the mark, written last: this version of the chunk is finished
    _chunks/removed/STEM         its mark may say instead that it was removed: see pipelines/marks.py
    _chunks/index/               what planning learned about each tar, kept for the next run
    _chunks/runs/, plans/        what each run was, did and planned: see pipelines/runs.py
    _chunks/chunk-size.json, configuration.json    decided once for the output: see pipelines/claims.py
    README.md, preview.png, report.html

STEM = NAME-OUTCOME.ok60.bad4. NAME is a function of the chunk: shard name, hash of the shard's URI, its fingerprint,
first and last position, configuration hash. OUTCOME is a hash of the positions that failed. Where some of these only
wait, because a file that they name could not be fetched for now, OUTCOME says which, and `.wait2` follows: two of the
four. So files never change:
doing a chunk again with the same outcome writes the same files, with another outcome it writes other files beside them,
and which version counts is decided by planning from the listing alone (`pipelines.finished`).

Version 0.1 wrote data/NAME.parquet and _chunks/done/NAME.ok60.bad4 with shorter hashes; its outputs are read and
continued.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from pipelines import storage
from pipelines.marks import is_marked, is_removed
from pipelines.samples import Chunk
from pipelines.store import FILES, READING_THREADS, Store, map_concurrently

_RANGE = r"(?P<start>\d{7,})-(?P<stop>\d{7,})"
_COUNTS = r"\.ok(?P<ok>\d+)\.bad(?P<bad>\d+)(?:\.wait(?P<wait>\d+))?"


def _name_pattern(digits: int) -> str:
    shard, fingerprint, configuration = (
        f"(?P<{part}>[0-9a-f]{{{digits}}})" for part in ("shard", "fingerprint", "configuration")
    )
    return rf"(?P<name>.*-{shard}-{fingerprint}-{_RANGE}-{configuration})"


NAME = re.compile(_name_pattern(storage.HASH_DIGITS))
STEM = re.compile(NAME.pattern + rf"-(?P<outcome>[0-9a-f]{{{storage.HASH_DIGITS}}}){_COUNTS}")
OLD_NAME = re.compile(_name_pattern(storage.OLD_HASH_DIGITS))
OLD_MARK = re.compile(OLD_NAME.pattern + _COUNTS)


class ChunkName(NamedTuple):
    """A chunk's name, taken apart."""

    text: str
    shard: str
    """Hash of the shard's URI."""
    fingerprint: str
    start: int
    stop: int
    configuration: str

    @classmethod
    def parse(cls, text: str) -> "ChunkName | None":
        """None for a text that is no chunk's name."""
        match = NAME.fullmatch(text) or OLD_NAME.fullmatch(text)
        return None if match is None else cls.of(match)

    @classmethod
    def of(cls, match: re.Match[str]) -> "ChunkName":
        """The name in what a pattern of this file has matched; the groups of all of them are in this order."""
        text, shard, fingerprint, start, stop, configuration = match.groups()[:6]
        return cls(text, shard, fingerprint, int(start), int(stop), configuration)

    @property
    def is_old(self) -> bool:
        """Whether version 0.1 gave it, with hashes of fewer digits."""
        return len(self.shard) < storage.HASH_DIGITS


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


def chunk_name(stem: str, shard_uri: str, fingerprint: str, start: int, stop: int, configuration: str) -> str:
    """The name of a chunk: a function of its arguments and of nothing else."""
    safe = re.sub(r"[^A-Za-z0-9_.]+", "_", stem)[:40] or "shard"
    return f"{safe}-{storage.short_hash(shard_uri)}-{fingerprint}-{start:07d}-{stop:07d}-{configuration}"


def version_stem(name: str, ok: int, failed: Iterable[int], waiting: Collection[int] = (), removals: int = 0) -> str:
    """The name of the files of a finished chunk: which positions failed, which of these wait, how many did not fail.

    removals: how many versions of this outcome were removed before they had a mark; their names are not used again.
    """
    positions = sorted(failed)
    outcomes = [f"{at} waits" if at in waiting else str(at) for at in positions]
    outcome = storage.short_hash(*outcomes, *([f"after {removals} removals"] if removals else []))
    return f"{name}-{outcome}.ok{ok}.bad{len(positions)}{f'.wait{len(waiting)}' if waiting else ''}"


def is_rows_file(uri: str, extension: str) -> bool:
    """Whether a file in data/ is called as those of chunks are, by this version or an earlier one."""
    stem, _, ending = uri.rsplit("/", 1)[-1].rpartition(".")
    return ending == extension and is_stem(stem)


def is_stem(text: str) -> bool:
    """Whether a name without its extension is one of a chunk's version, of this program or an earlier one."""
    return (STEM.fullmatch(text) or OLD_NAME.fullmatch(text)) is not None


def waiting_in(uri: str) -> int:
    """How many samples wait, by the name of a file of a version."""
    match = re.search(r"\.ok\d+\.bad\d+\.wait(\d+)(?:\.|$)", uri.rsplit("/", 1)[-1])
    return int(match[1]) if match else 0


def data_uri(output: str, stem: str, extension: str = "parquet") -> str:
    """Where the good rows of a version go."""
    return storage.join(output, "data", f"{stem}.{extension}")


def errors_uri(output: str, stem: str) -> str:
    """Where the failed samples of a version go."""
    return storage.join(output, "errors", f"{stem}.parquet")


def mark_uri(output: str, stem: str) -> str:
    """The file that says a version is finished."""
    return storage.join(output, "_chunks", "done", stem)


def index_uri(output: str, shard_uri: str, fingerprint: str) -> str:
    """Where planning keeps what it learned about a tar."""
    return storage.join(output, "_chunks", "index", f"{storage.short_hash(shard_uri)}-{fingerprint}.json")


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
