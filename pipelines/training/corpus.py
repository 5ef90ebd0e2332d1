"""A corpus for training: outputs of this project or other shards, with the columns of image, conditions and caption.

Planning reads footers, indexes of tars and the columns that select rows, never an image.

Tested in tests/pipelines/training/test_corpus.py.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipelines import storage
from pipelines.errors import SettingError
from pipelines.readers.formats import ShardFormat, format_called
from pipelines.readers.parquet_format import PARQUET
from pipelines.readers.shard_index import Shard
from pipelines.readers.shards import find_shards
from pipelines.readers.sources import ImageShards
from pipelines.samples import Columns
from pipelines.storage.store import FILES, Store
from pipelines.training.conditions import CorpusCondition
from pipelines.training.groups import Group, other_groups, parquet_groups
from pipelines.training.provenance import describe, with_kinds

HELD_OUT_ROWS, HELD_OUT_GROUPS, HELD_OUT_SHARE = 16, 4, 8
"""At most this number of rows, from this number of groups, and one row of every N, are held out for validation."""

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What to train on. Light and picklable."""

    uris: tuple[str, ...]
    conditions: tuple[CorpusCondition, ...]
    image: str | None = None
    caption: str | None = None
    weight: str | None = None
    """Column with the weights of the rows; None: every row has the weight 1."""
    where: tuple[str, ...] = ()
    """Predicates on the columns of Parquet files."""
    store: Store = FILES


@dataclass(frozen=True, kw_only=True)
class PlannedCorpus:
    """The rows of a corpus that are trained, and those that are held out."""

    conditions: tuple[CorpusCondition, ...]
    """The conditions, with their kinds."""
    groups: tuple[Group, ...]
    columns: tuple[Columns, ...]
    """The columns of every kind of shard. `media` has the conditions, in the order of the corpus."""
    columns_of: tuple[int, ...]
    """For each group its place in `columns`."""
    held_out: tuple[tuple[Group, int], ...]
    """(group, place in `columns`) of the rows for validation."""
    made_by: Mapping[str, str]
    """Condition -> what made its maps, where the corpus says so."""
    fingerprint: str
    """Hash of the shards, and of what selects their rows."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason -> number of rows that are not used."""

    @property
    def rows(self) -> int:
        """Number of rows that are trained."""
        return sum(group.rows for group in self.groups)

    @property
    def held_out_rows(self) -> int:
        """Number of rows that are held out."""
        return sum(group.rows for group, _ in self.held_out)


def plan_corpus(corpus: Corpus, work: str, tell: Tell | None = None) -> PlannedCorpus:
    """Find the shards, check their columns, and divide their rows into groups.

    Args:
        corpus: What to train on.
        work: Work folder of the training. Indexes of tars are kept there; what lies below it is no input.
        tell: Receives lines about what is left out.

    Raises:
        SettingError: an input cannot be read, lacks a column, or has fewer than two rows.
    """
    shards = _find(corpus, work, tell)
    described = describe(shards, [each.parquet_column for each in corpus.conditions], corpus.store)
    left_out: Counter[str] = Counter()
    groups: list[Group] = []
    columns: list[Columns] = []
    columns_of: list[int] = []
    for form, of_format in _by_format(shards).items():
        source = _source(corpus, form, of_format)
        columns.append(source.columns)
        found = list(_groups(corpus, source, form, of_format, work, left_out))
        groups += found
        columns_of += [len(columns) - 1] * len(found)
    if sum(group.rows for group in groups) < 2:
        raise SettingError(
            f"--corpus: training needs at least two rows, one of them for validation; {', '.join(corpus.uris)} "
            f"{_that_has(left_out)}. Check --where and --weight-column."
        )
    used, held_out = hold_out(groups, columns_of)
    made_by = {each.name: described.made_by.get(each.parquet_column, "") for each in corpus.conditions}
    return PlannedCorpus(
        conditions=with_kinds(corpus.conditions, described),
        made_by={name: text for name, text in made_by.items() if text},
        groups=tuple(group for group, _ in used),
        columns=tuple(columns),
        columns_of=tuple(at for _, at in used),
        held_out=tuple(held_out),
        fingerprint=_fingerprint(corpus, shards),
        left_out=dict(left_out),
    )


def hold_out(
    groups: Sequence[Group], columns_of: Sequence[int]
) -> tuple[list[tuple[Group, int]], list[tuple[Group, int]]]:
    """Divide rows into (trained, held out), each as (group, its place in the columns).

    The held-out rows are few and evenly spread over a few groups, since reading a row costs reading its group.
    """
    total = sum(group.rows for group in groups)
    count = min(HELD_OUT_ROWS, max(1, total // HELD_OUT_SHARE))
    chosen = {round(at) for at in np.linspace(0, len(groups) - 1, min(HELD_OUT_GROUPS, len(groups), count))}
    share = -(-count // len(chosen))
    used, held_out = [], []
    for number, (group, at) in enumerate(zip(groups, columns_of, strict=True)):
        taken = np.zeros(group.rows, bool)
        if number in chosen and (wanted := min(share, count - sum(each.rows for each, _ in held_out), group.rows)) > 0:
            taken[np.arange(wanted) * group.rows // wanted] = True
        parts = (group.keeping(~taken), used), (group.keeping(taken), held_out)
        for part, target in parts:
            if part is not None:
                target.append((part, at))
    return used, held_out


def _find(corpus: Corpus, work: str, tell: Tell | None) -> list[Shard]:
    try:
        return find_shards(corpus.uris, exclude=work, store=corpus.store, tell=tell)
    except SettingError as error:
        raise SettingError(str(error).replace("--input", "--corpus", 1)) from error


def _by_format(shards: Sequence[Shard]) -> dict[ShardFormat, list[Shard]]:
    found: dict[ShardFormat, list[Shard]] = defaultdict(list)
    for shard in shards:
        found[format_called(shard.format)].append(shard)
    return found


def _source(corpus: Corpus, form: ShardFormat, shards: Sequence[Shard]) -> ImageShards:
    """Return the source of shards of one format. Raises SettingError if a condition is in none of them."""
    media = tuple(_column(condition, form, shards, corpus.store) for condition in corpus.conditions)
    for option, value in (("--weight-column", corpus.weight), ("--where", "".join(corpus.where[:1]))):
        if value and form is not PARQUET:
            raise SettingError(
                f"{option} {value!r} selects rows by columns of Parquet files; {shards[0].uri} is none. Write the "
                "corpus as Parquet, or leave the option out."
            )
    columns = Columns(image=corpus.image, caption=corpus.caption, media=media, where=corpus.where)
    options = {name: _option(condition, name) for name, condition in zip(media, corpus.conditions, strict=True)}
    return ImageShards(columns=columns, media_options=options, store=corpus.store)


def _option(condition: CorpusCondition, column: str) -> str:
    return f"--condition {condition.name}: column {column}"


def _column(condition: CorpusCondition, form: ShardFormat, shards: Sequence[Shard], store: Store) -> str:
    names = (condition.parquet_column,) if form is PARQUET else condition.members()
    problem: SettingError | None = None
    for name in names:
        try:
            form.check_media(shards, {name: _option(condition, name)}, store)
            return name
        except SettingError as error:
            problem = problem or error
    assert problem is not None
    raise SettingError(f"{problem} Name the column with --condition {condition.name}:COLUMN.") from problem


def _groups(
    corpus: Corpus, source: ImageShards, form: ShardFormat, shards: list[Shard], work: str, left_out: Counter[str]
) -> Iterator[Group]:
    for found in source.measure(shards, work, None):
        if found.damage:
            left_out[f"{found.shard.uri.rsplit('/', 1)[-1]}: {found.damage}"] += 1
        if found.index is None:
            continue
        if form is PARQUET:
            yield from parquet_groups(found, source.columns.where, corpus.weight, corpus.store, left_out)
        else:
            yield from other_groups(found)


def _that_has(left_out: Mapping[str, int]) -> str:
    reasons = ", ".join(f"{count} with {reason}" for reason, count in left_out.items())
    return f"has fewer ({reasons} are left out)" if reasons else "has fewer"


def _fingerprint(corpus: Corpus, shards: Sequence[Shard]) -> str:
    selection = [corpus.image or "", corpus.caption or "", corpus.weight or "", *corpus.where]
    maps = [f"{each.name} {each.column}" for each in corpus.conditions]
    return storage.short_hash(*selection, *maps, *sorted(f"{shard.uri} {shard.fingerprint}" for shard in shards))
