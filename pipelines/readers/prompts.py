"""Prompts as samples, from text files (one per line), JSON lines and Parquet columns."""

import codecs
import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines import storage
from pipelines.errors import MisfitError, SampleError, SettingError, clipped
from pipelines.readers import chunks as readers
from pipelines.readers import json_lines
from pipelines.readers.captions import caption_from
from pipelines.readers.fields import lookup
from pipelines.readers.json_lines import wide_encoding
from pipelines.readers.left_out import LeftOut
from pipelines.readers.measure import measure_shard, shortened, without_emptied
from pipelines.readers.misfits import Misfits
from pipelines.readers.parquet import count_rows, earlier_keys, read_rows
from pipelines.readers.parquet_columns import KEY_NAMES, ParquetColumns, check_named, check_single, listed, type_at
from pipelines.readers.parquet_files import BadRow, open_parquet
from pipelines.readers.places import check_apart, named_places
from pipelines.readers.row_samples import named
from pipelines.readers.shard_index import MeasuredShard, Shard
from pipelines.readers.shards import Tell, reading, shard_of
from pipelines.samples import Chunk, Sample, repeated_key
from pipelines.storage.damage import reason_of
from pipelines.storage.store import FILES, Store
from pipelines.storage.uris import Places, check_given

PROMPT_FIELDS = ("prompt", "caption", "text")
FORMATS = {".txt": "lines", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet",
           ".pq": "parquet"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PromptFiles:
    """A source of one sample per line or row, with the prompt as its caption. Empty lines do not count."""

    column: str | None = None
    """Parquet column or JSON field of the prompt. None means the first of PROMPT_FIELDS."""
    key: str | None = None
    """Parquet column or JSON field of unique names. None means file name and number, in Parquet files
    after the columns `key` and `__key__`."""
    store: Store = FILES

    def find(self, inputs: Sequence[str], output: str, tell: Tell | None = None) -> list[Shard]:
        """Find the files of prompts, each once."""
        places, left_out = Places(), LeftOut(looks_for_links=tell is not None)
        own = storage.normalize(output)
        shards: dict[str, Shard] = {}
        for text in inputs:
            check_given("--prompts", text)
            check_apart(text, "--prompts", own, places)
            with reading("--prompts", text):
                named = named_places(text, "--prompts", _is_prompt_file, self.store, left_out)
            files = [file for place in named for file in place.files if _is_prompt_file(file.uri)]
            found = [shard_of(file, _format_of, places, text) for file in files if not places.is_below(file.uri, own)]
            if not found:
                raise SettingError(
                    f"--prompts {text!r} holds no prompts. Rule: text files with a prompt a line (.txt), JSON lines "
                    "(.jsonl) or Parquet files (.parquet), by name, glob or folder. Check the path."
                )
            for shard in found:
                if not places.is_below(shard.uri, own):
                    shards.setdefault(shard.uri, shard)
        if tell is not None and (line := left_out.text("--prompts")):
            tell(line)
        self._check_used(list(shards.values()))
        return list(shards.values())

    def _check_used(self, shards: Sequence[Shard]) -> None:
        """Raise SettingError for columns if all shards are text files."""
        for option, name in (("--prompt-column", self.column), ("--key-column", self.key)):
            if name is not None and all(shard.format == "lines" for shard in shards):
                raise SettingError(
                    f"{option} {name!r} names a column of Parquet files or a field of JSON lines; the prompts are text "
                    "files, a prompt a line. Leave it out."
                )

    def measure(self, shards: list[Shard], output: str, limit: int | None) -> list[MeasuredShard]:
        """Count the prompts of each file and check its columns."""
        measured: list[MeasuredShard] = []
        misfits = Misfits()
        left = limit
        for shard in shards:
            found = self._measure(shard)
            misfits.add(found)
            if left is not None:
                found = shortened(found, left)
                left -= found.samples
            measured.append(found)
        misfits.check()
        return without_emptied(measured)

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """Read the prompts at the chunk's positions."""
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
                empty = SampleError("read", "the prompt is empty or not a text")
                yield sample if sample.caption or sample.problem else _with_problem(sample, empty)

    def _measure(self, shard: Shard) -> MeasuredShard:
        return measure_shard(shard, lambda: MeasuredShard.of(shard, None, self._count(shard)))

    def _count(self, shard: Shard) -> int:
        store = self.store.pinned({shard.uri: shard.fingerprint})
        if shard.format == "jsonl":
            return self._count_json(shard.uri, store)
        if shard.format != "parquet":
            return sum(1 for _ in _lines(shard.uri, store))
        with open_parquet(shard.uri, store) as parquet:
            with parquet.verifying_schema():
                self._parquet_columns(parquet.schema, shard.uri)
            return parquet.rows

    def _count_json(self, uri: str, store: Store) -> int:
        """Count the lines of a JSON lines file. Raises MisfitError if it is not one or lacks the fields."""
        form = json_lines.LinesForm()
        objects: list[Any] = []
        has_texts = False
        for line in _lines(uri, store):
            is_looked_at = form.understood < 2 or len(objects) < json_lines.CHECKED_LINES
            fields = _loaded(line or b"") if is_looked_at else None
            if isinstance(fields, dict) and len(objects) < json_lines.CHECKED_LINES:
                objects.append(fields)
            has_texts = has_texts or isinstance(fields, str)
            form.add(line or b"", not is_looked_at or isinstance(fields, (dict, str)))
        form.check(uri)
        json_lines.check_fields(objects, [("--prompt-column", self.column), ("--key-column", self.key)], uri)
        if self.column is None and objects and not has_texts and not any(map(_has_prompt, objects)):
            raise MisfitError(
                f"{uri} has no field prompt, caption or text. Its fields: {listed(objects[0])}. Name one with "
                "--prompt-column."
            )
        return form.lines

    def _parquet_columns(self, schema: pa.Schema, uri: str) -> ParquetColumns:
        names = schema.names
        prompt = self.column or next((name for name in PROMPT_FIELDS if name in names), None)
        if prompt is None or type_at(schema, prompt) is None:
            what = f"--prompt-column {self.column!r} is not in {uri}" if self.column else f"{uri} has no column prompt"
            raise MisfitError(f"{what}. Its columns: {listed(names)}. Name one with --prompt-column.")
        check_named(schema, "--key-column", self.key, uri)
        key = self.key or next((name for name in KEY_NAMES if name in names), None)
        for option, path in (("--prompt-column", prompt), ("--key-column", key)):
            if path is not None:
                check_single(schema, option, path, uri)
        return ParquetColumns(image=prompt, key=key, caption=None)

    def _parquet_samples(self, chunk: Chunk) -> Iterator[Sample]:
        _, schema = count_rows(chunk.shard_uri, self.store)
        chosen = self._parquet_columns(schema, chunk.shard_uri)
        key = chosen.key
        seen = set() if key is None else earlier_keys(chunk.shard_uri, key, chunk.start, self.store)
        rows = read_rows(chunk.shard_uri, chosen, chunk.start, chunk.stop, self.store)
        for position, row in rows:
            values = row.values if isinstance(row, BadRow) else row
            stored = None if key is None else values.get(key)
            name, problem = (None, None) if stored is None else named(stored, f"column {key}")
            if name is not None:
                problem = repeated_key(name) if name in seen else None
                seen.add(name)
            if isinstance(row, BadRow):
                yield _with_problem(_sample(chunk, position, None, name), row.problem)
                continue
            sample = _sample(chunk, position, values[chosen.image], name)
            yield sample if problem is None else _with_problem(sample, problem)

    def _line_samples(self, chunk: Chunk) -> Iterator[Sample]:
        seen: set[str] = set()
        for position, line in enumerate(_lines(chunk.shard_uri, self.store)):
            if position >= chunk.stop:
                return
            if position >= chunk.start:
                yield self._line_sample(chunk, position, line, seen)
            elif self.key is not None and (name := _field_key(_loaded(line or b""), self.key)[0]) is not None:
                seen.add(name)

    def _line_sample(self, chunk: Chunk, position: int, line: bytes | None, seen: set[str]) -> Sample:
        """Return the sample of a line. `seen` holds the keys before it, if a key field is named."""
        if line is None:
            problem = SampleError("read", f"the line is longer than {json_lines.MAX_LINE_BYTES} bytes")
            return _with_problem(_sample(chunk, position, None, None), problem)
        if chunk.shard_format == "lines":
            return _sample(chunk, position, line, None)
        try:
            fields = json_lines.loaded(line)
        except (ValueError, RecursionError) as error:
            return _with_problem(_sample(chunk, position, None, None), _not_json(error))
        name, problem = (None, None) if self.key is None else _field_key(fields, self.key)
        sample = _sample(chunk, position, self._prompt_of(fields), name)
        if name is not None:
            problem = repeated_key(name) if name in seen else None
            seen.add(name)
        return sample if problem is None else _with_problem(sample, problem)

    def _prompt_of(self, fields: Any) -> Any:
        """Return the prompt in a parsed line: a field, or the line itself; a SampleError if there is none."""
        if self.column is None and not isinstance(fields, dict):
            return fields
        names = PROMPT_FIELDS if self.column is None else (self.column,)
        found = next((found for name in names if (found := lookup(fields, name)) is not None), None)
        if found is not None or (self.column is None and _has_prompt(fields)):
            return found
        there = clipped(listed(fields), 100) if isinstance(fields, dict) else "no fields"
        wanted = f"no field {clipped(' or '.join(names), 80)}"
        return SampleError("read", f"the prompt is empty or not a text: {wanted}, the line has {there}")


def _has_prompt(fields: Mapping[str, Any]) -> bool:
    """Return whether an object has a prompt field, even a null one."""
    return any(name in fields for name in PROMPT_FIELDS)


def _loaded(line: bytes) -> Any:
    """Return the value of a line, or None if it is not JSON."""
    try:
        return json_lines.loaded(line)
    except (ValueError, RecursionError):
        return None


def _field_key(fields: Any, path: str) -> tuple[str | None, SampleError | None]:
    return named(lookup(fields, path), f"the field {path}", "is missing or null")


def _not_json(error: Exception) -> SampleError:
    return SampleError("read", f"not JSON: {reason_of(error)}")


def _sample(chunk: Chunk, position: int, prompt: object, key: str | None) -> Sample:
    stem = chunk.shard_uri.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    number = f"{stem}/{position:08d}" if key is None else key
    if isinstance(prompt, SampleError):
        return Sample(position=position, key=number, problem=prompt)
    text, note = caption_from(prompt)
    text = text.strip()
    problem = SampleError("read", f"the prompt is empty or not a text{f': {note}' if note else ''}")
    return Sample(position=position, key=number, caption=text, caption_note=note, problem=None if text else problem)


def _with_problem(sample: Sample, problem: SampleError) -> Sample:
    return Sample(position=sample.position, key=sample.key, caption=sample.caption, problem=problem)


def _lines(uri: str, store: Store) -> Iterator[bytes | None]:
    """Yield the lines of a text file that are not empty, as UTF-8; None for those that are too long."""
    for at_bytes, line in json_lines.raw_lines(uri, 0, store):
        if at_bytes == 0 and (encoding := wide_encoding(line)):
            yield from _decoded_lines(uri, encoding, store)
            return
        is_whole_file = at_bytes == 0 and not line.endswith(b"\n")
        for part in line.split(b"\r") if is_whole_file else (line,):  # old programs end lines with \r only
            text = part.strip(b" \t\r\n")
            while text.startswith(codecs.BOM_UTF8):
                text = text.removeprefix(codecs.BOM_UTF8).lstrip(b" \t")
            if text:
                yield text if len(line) <= json_lines.MAX_LINE_BYTES else None


def _decoded_lines(uri: str, encoding: str, store: Store) -> Iterator[bytes]:
    with store.open_read(uri) as file, io.TextIOWrapper(file, encoding, "replace") as text:
        for line in text:
            if content := line.strip("\ufeff \t\r\n"):
                yield content.encode()


def _format_of(uri: str) -> str | None:
    return FORMATS.get("." + uri.rsplit("/", 1)[-1].rsplit(".", 1)[-1].lower())


def _is_prompt_file(uri: str) -> bool:
    return _format_of(uri) is not None
