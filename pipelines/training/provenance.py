"""What a corpus says about its columns: kinds of conditions, and what made them.

Tested in tests/pipelines/training/test_corpus.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipelines.errors import SettingError
from pipelines.readers.parquet_files import BadRow, OpenParquet, open_parquet, read_row_range
from pipelines.readers.parquet_format import PARQUET
from pipelines.readers.shard_index import Shard
from pipelines.storage.damage import is_damage
from pipelines.storage.store import Store
from pipelines.training.conditions import CorpusCondition
from unicon.condition_kinds import CONDITION_KINDS

MODEL_COLUMNS = ("model", "adapter")
"""Columns that say what made a condition of an output of `estimate.py`."""


@dataclass(frozen=True, kw_only=True)
class Described:
    """What the first readable Parquet file of a corpus says."""

    kinds: Mapping[str, str] = field(default_factory=dict)
    """Column -> kind of condition."""
    made_by: Mapping[str, str] = field(default_factory=dict)
    """Column -> what made it."""


def describe(shards: Iterable[Shard], columns: Sequence[str], store: Store) -> Described:
    """Return what the first readable Parquet file says about columns; nothing if there is none."""
    for shard in shards:
        if shard.format in PARQUET.names:
            try:
                with open_parquet(shard.uri, store) as parquet:
                    return Described(kinds=_kinds(parquet, columns), made_by=_made_by(parquet, columns))
            except Exception as error:
                if not is_damage(error):
                    raise
    return Described()


def with_kinds(conditions: Sequence[CorpusCondition], described: Described) -> tuple[CorpusCondition, ...]:
    """Return the conditions with their kinds: as given, by their name, or as the corpus says.

    Raises:
        SettingError: a kind is not known.
    """
    return tuple(replace(each, kind=_kind(each, described)) for each in conditions)


def _kind(condition: CorpusCondition, described: Described) -> str:
    known = condition.kind or (condition.name if condition.name in CONDITION_KINDS else "")
    kind = known or described.kinds.get(condition.parquet_column, "")
    if kind not in CONDITION_KINDS:
        raise SettingError(
            f"--condition {condition.name}: neither its name nor the corpus says what kind of map it is. Write "
            f"{condition.name}=KIND with a kind of {', '.join(sorted(CONDITION_KINDS))}."
        )
    return kind


def _kinds(parquet: OpenParquet, columns: Sequence[str]) -> dict[str, str]:
    notes = {key.decode(): value.decode() for key, value in (parquet.schema.metadata or {}).items()}
    return {name: notes[f"{name}_kind"] for name in columns if f"{name}_kind" in notes}


def _made_by(parquet: OpenParquet, columns: Sequence[str]) -> dict[str, str]:
    """Return what the first row says: the columns NAME_engine, or those of the model of an estimation."""
    engines = {name: f"{name}_engine" for name in columns if f"{name}_engine" in parquet.schema.names}
    models = [name for name in MODEL_COLUMNS if name in parquet.schema.names]
    wanted = [*engines.values(), *models]
    rows = read_row_range(parquet, wanted, None, [], 0, min(1, parquet.rows)) if wanted else iter(())
    row = next((values for _, values in rows if not isinstance(values, BadRow)), {})
    of_model = " ".join(str(row[name]) for name in models if row.get(name))
    return {name: text for name in columns if (text := str(row.get(engines.get(name, ""), "") or of_model))}
