"""A condition of a corpus, and where its maps are.

Tested in tests/pipelines/training/test_corpus.py.
"""

from dataclasses import dataclass

SCENE_MEMBERS = {"depth": "depth.png", "edge": "edges.png", "pose": "pose.png", "normal": "normal.png"}
"""Condition -> member of a rendered scene with its map."""


@dataclass(frozen=True, kw_only=True)
class CorpusCondition:
    """A condition of a corpus, for which an adapter is trained."""

    name: str
    """Name of the adapter."""
    kind: str = ""
    """Kind of its maps, see `unicon.condition_kinds`; empty until the corpus was read that says it."""
    column: str | None = None
    """Column with its maps. None: the column NAME, or the member NAME.png of a tar."""

    @property
    def parquet_column(self) -> str:
        """The column of a Parquet file."""
        return self.column or self.name

    def members(self) -> tuple[str, ...]:
        """Return where the maps may be in a shard that is no Parquet file, the most usual place first."""
        if self.column is not None:
            return (self.column,)
        return tuple(dict.fromkeys([f"{self.name}.png", SCENE_MEMBERS.get(self.name, f"{self.name}.png"), self.name]))
