"""The output root: where files lie, what their names mean, what is finished.

    data/NAME.parquet            rows that succeeded; NAME.tar with --output-format webdataset
    errors/NAME.parquet          samples that did not
    _chunks/done/NAME.ok60.bad4  the mark: this chunk is finished, 60 rows in data/, 4 in errors/
    _chunks/index/               what planning learnt of each tar, kept for the next run
    _chunks/runs/, plans/        what each run was, did and planned: see pipelines/runs.py
    _chunks/configuration-HASH.json
    README.md, preview.png, report.html

NAME = shard name, hash of the shard's URI, its fingerprint, first and last position, configuration hash. Doing a chunk
twice therefore writes the same files. errors/ is published first, then data/, then the mark: a chunk without a mark
is done again and its files replaced.
"""

import json
import re
from dataclasses import dataclass

from pipelines import storage

NAME = re.compile(
    r"(?P<stem>.*)-(?P<shard>[0-9a-f]{10})-(?P<fingerprint>[0-9a-f]{10})"
    r"-(?P<start>\d{7,})-(?P<stop>\d{7,})-(?P<configuration>[0-9a-f]{10})"
)
MARK = re.compile(r"(?P<name>.+)\.ok(?P<ok>\d+)\.bad(?P<bad>\d+)")


@dataclass(frozen=True, kw_only=True)
class ChunkName:
    """A chunk's file name, taken apart."""

    text: str
    shard: str
    """Hash of the shard's URI."""
    fingerprint: str
    start: int
    stop: int
    configuration: str

    @classmethod
    def parse(cls, text: str) -> "ChunkName | None":
        """None for files that are none of ours."""
        match = NAME.fullmatch(text)
        if match is None:
            return None
        return cls(
            text=text,
            shard=match["shard"],
            fingerprint=match["fingerprint"],
            start=int(match["start"]),
            stop=int(match["stop"]),
            configuration=match["configuration"],
        )


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A finished chunk."""

    name: ChunkName
    ok: int
    bad: int
    uri: str


@dataclass(frozen=True, kw_only=True)
class Published:
    """What lies in an output root."""

    marks: dict[str, Mark]
    """By chunk name."""
    files: dict[str, list[str]]
    """URIs in data/ and errors/ by chunk name, finished or not."""


def chunk_name(stem: str, shard_uri: str, fingerprint: str, start: int, stop: int, configuration: str) -> str:
    """The name of a chunk's files: a function of its arguments and of nothing else."""
    safe = re.sub(r"[^A-Za-z0-9_.]+", "_", stem)[:40] or "shard"
    return f"{safe}-{storage.short_hash(shard_uri)}-{fingerprint}-{start:07d}-{stop:07d}-{configuration}"


def configuration_hash(settings: dict[str, object]) -> str:
    """A hash of everything that changes a row's content."""
    return storage.short_hash(json.dumps(settings, sort_keys=True))


def data_uri(output: str, name: str, extension: str = "parquet") -> str:
    """Where the good rows of a chunk go."""
    return storage.join(output, "data", f"{name}.{extension}")


def errors_uri(output: str, name: str) -> str:
    """Where the failed samples of a chunk go."""
    return storage.join(output, "errors", f"{name}.parquet")


def mark_uri(output: str, name: str, ok: int, bad: int) -> str:
    """The file that says a chunk is finished."""
    return storage.join(output, "_chunks", "done", f"{name}.ok{ok}.bad{bad}")


def index_uri(output: str, shard_uri: str, fingerprint: str) -> str:
    """Where planning keeps what it learnt of a tar."""
    return storage.join(output, "_chunks", "index", f"{storage.short_hash(shard_uri)}-{fingerprint}.json")


def run_uri(output: str, run: str) -> str:
    """The record of a run."""
    return storage.join(output, "_chunks", "runs", f"{run}.json")


def plan_uri(output: str, name: str) -> str:
    """What a run planned, by the name that its record gives."""
    return storage.join(output, "_chunks", "plans", name)


def configuration_uri(output: str, configuration: str) -> str:
    """Where the settings behind a configuration hash are spelled out."""
    return storage.join(output, "_chunks", f"configuration-{configuration}.json")


def list_marks(output: str) -> dict[str, Mark]:
    """The finished chunks by name, from a listing alone."""
    marks: dict[str, Mark] = {}
    for uri in storage.list_uris(storage.join(output, "_chunks", "done")):
        match = MARK.fullmatch(uri.rsplit("/", 1)[-1])
        name = ChunkName.parse(match["name"]) if match else None
        if match and name:
            mark = Mark(name=name, ok=int(match["ok"]), bad=int(match["bad"]), uri=uri)
            if name.text not in marks or marks[name.text].ok < mark.ok:  # a retry leaves two when it is killed
                marks[name.text] = mark
    return marks


def published(output: str) -> Published:
    """List the output root; nothing is opened."""
    marks = list_marks(output)
    files: dict[str, list[str]] = {}
    for folder in ("data", "errors"):
        for uri in storage.list_uris(storage.join(output, folder)):
            stem = uri.rsplit("/", 1)[-1].rpartition(".")[0]
            if ChunkName.parse(stem) is not None:
                files.setdefault(stem, []).append(uri)
    return Published(marks=marks, files=files)
