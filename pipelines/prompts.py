"""Prompts as samples: text files (a line each), JSON lines, Parquet columns."""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pipelines import json_lines, parquet_shards, readers, storage
from pipelines.damage import reason_of
from pipelines.errors import SampleError, SettingError
from pipelines.fields import printable
from pipelines.inputs import Shard, expand_braces, shard_of
from pipelines.measure import Measured, measure_shard, shortened, whole, without_emptied
from pipelines.parquet_columns import KEY_NAMES, ParquetColumns
from pipelines.parquet_files import BadRow, open_parquet
from pipelines.samples import Chunk, Sample, repeated_key
from pipelines.storage_errors import is_refusal
from pipelines.store import FILES, Store
from pipelines.uris import Places

PROMPT_FIELDS = ("prompt", "caption", "text")
FORMATS = {".txt": "lines", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet",
           ".pq": "parquet"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PromptFiles:
    """A sample for every line or row, with the prompt as its caption; empty lines do not count."""

    column: str | None = None
    """Parquet column or JSON field of the prompt. None: the first of PROMPT_FIELDS."""
    key: str | None = None
    """Parquet column of unique names. None: `key` or `__key__` if there, else file name and number."""
    store: Store = FILES

    def find(self, inputs: Sequence[str], output: str) -> list[Shard]:
        """The files of prompts, each once."""
        shards: dict[str, Shard] = {}
        for text in inputs:
            try:
                found = list(_files(text, storage.normalise(output), self.store))
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and not (is_refusal(error) or isinstance(error, FileNotFoundError)):
                    raise  # the storage fails for now: the same command goes on
                raise SettingError(f"--prompts {text!r} cannot be read: {error}") from error
            if not found:
                raise SettingError(
                    f"--prompts {text!r} holds no prompts. Rule: text files with a prompt a line (.txt), JSON lines "
                    "(.jsonl) or Parquet files (.parquet), by name, glob or folder. Check the path."
                )
            for shard in found:
                shards.setdefault(shard.uri, shard)
        return list(shards.values())

    def measure(self, shards: list[Shard], output: str, limit: int | None) -> list[Measured]:
        """Count the prompts of each file; checks the columns."""
        measured: list[Measured] = []
        left = limit
        for shard in shards:
            found = self._measure(shard)
            if left is not None:
                found = shortened(found, left)
                left -= found.samples
            measured.append(found)
        return without_emptied(measured)

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """The prompts at the chunk's positions."""
        planned = dataclasses.replace(self, store=readers.planned(chunk, self.store))
        yield from readers.checked(planned._samples(chunk), chunk, self.store)

    def _samples(self, chunk: Chunk) -> Iterator[Sample]:
        wanted = set(chunk.positions)
        if chunk.damage:
            yield readers.damage_sample(chunk)
            return
        read = self._parquet_samples if chunk.shard_format == "parquet" else self._line_samples
        for sample in read(chunk):
            if sample.position in wanted:
                empty = SampleError("read", "the prompt is empty or no text")
                yield sample if sample.caption or sample.problem else _with_problem(sample, empty)

    def _measure(self, shard: Shard) -> Measured:
        return measure_shard(shard, lambda: whole(shard, None, self._count(shard)))

    def _count(self, shard: Shard) -> int:
        store = self.store.pinned({shard.uri: shard.fingerprint})
        if shard.format != "parquet":
            return sum(1 for _ in _lines(shard.uri, store))
        with open_parquet(shard.uri, store) as parquet:
            with parquet.believed():
                self._parquet_columns(parquet.schema.names, shard.uri)
            return parquet.rows

    def _parquet_columns(self, names: Sequence[str], uri: str) -> ParquetColumns:
        prompt = self.column or next((name for name in PROMPT_FIELDS if name in names), None)
        if prompt not in names:
            what = f"--prompt-column {self.column!r} is not in {uri}" if self.column else f"{uri} has no column prompt"
            raise SettingError(f"{what}. Its columns: {', '.join(names)}. Name one with --prompt-column.")
        if self.key is not None and self.key not in names:
            raise SettingError(f"--key-column {self.key!r} is not in {uri}. Its columns: {', '.join(names)}.")
        key = self.key or next((name for name in KEY_NAMES if name in names), None)
        return ParquetColumns(image=prompt, key=key, caption=None)

    def _parquet_samples(self, chunk: Chunk) -> Iterator[Sample]:
        _, schema = parquet_shards.count_rows(chunk.shard_uri, self.store)
        chosen = self._parquet_columns(schema.names, chunk.shard_uri)
        key = chosen.key
        seen = set() if key is None else parquet_shards.earlier_keys(chunk.shard_uri, key, chunk.start, self.store)
        rows = parquet_shards.read_rows(chunk.shard_uri, chosen, chunk.start, chunk.stop, self.store)
        for position, row in rows:
            values = row.values if isinstance(row, BadRow) else row
            name = None if key is None or values.get(key) is None else str(values[key])
            sample = _sample(chunk, position, values.get(chosen.image), name)
            if isinstance(row, BadRow):
                yield _with_problem(sample, row.problem)
                continue
            yield _with_problem(sample, repeated_key(name)) if name in seen and name is not None else sample
            seen.add(sample.key)

    def _line_samples(self, chunk: Chunk) -> Iterator[Sample]:
        lines = enumerate(_lines(chunk.shard_uri, self.store))
        for position, line in islice(lines, chunk.start, chunk.stop):
            if line is None:
                problem = SampleError("read", f"the line is longer than {json_lines.MAX_LINE_BYTES} bytes")
                yield _with_problem(_sample(chunk, position, "", None), problem)
                continue
            if chunk.shard_format == "lines":
                yield _sample(chunk, position, line, None)
                continue
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                problem = SampleError("read", f"no JSON: {reason_of(error)}")
                yield _with_problem(_sample(chunk, position, "", None), problem)
                continue
            names = PROMPT_FIELDS if self.column is None else (self.column,)
            fields = fields if isinstance(fields, dict) else {"prompt": fields}
            yield _sample(chunk, position, next((fields[name] for name in names if name in fields), None), None)


def _sample(chunk: Chunk, position: int, prompt: object, key: str | None) -> Sample:
    stem = chunk.shard_uri.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    caption = printable(prompt.strip()) if isinstance(prompt, str) else ""
    return Sample(position=position, key=key or f"{stem}/{position:08d}", caption=caption)


def _with_problem(sample: Sample, problem: SampleError) -> Sample:
    return Sample(position=sample.position, key=sample.key, caption=sample.caption, problem=problem)


def _lines(uri: str, store: Store) -> Iterator[str | None]:
    """The lines of a text file that are not empty; None for those that are too long."""
    for _, line in json_lines.raw_lines(uri, 0, store):
        text = line.decode("utf-8", errors="replace").strip("\ufeff \t\r\n")
        if text:
            yield text if len(line) <= json_lines.MAX_LINE_BYTES else None


def _format_of(uri: str) -> str | None:
    return FORMATS.get("." + uri.rsplit("/", 1)[-1].rsplit(".", 1)[-1].lower())


def _files(text: str, output: str, store: Store) -> Iterator[Shard]:
    paths = Places()
    for uri in expand_braces(storage.normalise(text)):
        names = [place for place, _ in store.glob_files(uri)] if re.search(r"[*?\[]", uri) else [uri]
        for name in names:
            for info in sorted(store.iter_files(name), key=lambda info: info.uri):
                if _format_of(info.uri) is None or re.search(r"/[._]", info.uri[len(name) :]):
                    continue
                shard = shard_of(info, _format_of, paths, text)
                if not any(paths.is_below(place, output) for place in (info.uri, shard.uri)):
                    yield shard
