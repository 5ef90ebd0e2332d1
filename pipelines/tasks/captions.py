"""Captions of a corpus: the text that came with a sample, a template over its fields, or a model that describes it.

Tested in tests/pipelines/tasks/test_captions.py.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.errors import SettingError, clipped
from pipelines.images.codec import PACKED, unpack
from pipelines.samples import Sample
from pipelines.stages.task import Row

CAPTION_MADE = "caption_made"
"""Column that carries the text of a captioner to publication; null for a row that has its caption already."""
FROM_INPUT, FROM_TEMPLATE = "input", "template"
"""Values of the column `caption_by`, beside the name of a captioner."""


@dataclass(frozen=True)
class CaptionTemplate:
    """A text with names of fields in braces, such as `a photo of {label}`."""

    text: str

    def __post_init__(self) -> None:
        """Raise SettingError for a text with anything but names in its braces."""
        rule = "Rule: a text with names of fields in braces, as in 'a photo of {label}'; a brace itself is {{ or }}"
        try:
            parts = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise SettingError(f"--caption-template {clipped(self.text)!r}: {error}. {rule}.") from None
        wrong = [name for _, name, form, how in parts if name is not None and (not name or form or how or "[" in name)]
        if wrong or not self.names:
            what = f"{{{wrong[0]}}} is not a name" if wrong else "it names no field"
            raise SettingError(f"--caption-template {clipped(self.text)!r}: {what}. {rule}.")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the fields."""
        return tuple(dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(self.text) if name))

    def fill(self, values: Mapping[str, Any]) -> tuple[str, str]:
        """Return (caption, ""), or ("", why there is none) for values that lack a field or have it empty."""
        texts = {name: _text(values.get(name)) for name in self.names}
        missing = [name for name, text in texts.items() if not text]
        if missing:
            return "", f"--caption-template: no value for {clipped(', '.join(missing))}"
        parts = string.Formatter().parse(self.text)
        return "".join(literal + (texts[name] if name else "") for literal, name, _, _ in parts), ""


def _text(value: Any) -> str:
    """Return a value as a part of a caption; empty for anything but texts, numbers and booleans."""
    return " ".join(str(value).split()) if isinstance(value, str | int | float) else ""


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Where captions come from: the template if there is one, else the input, else or always the captioner."""

    template: CaptionTemplate | None = None
    captioner: str = ""
    """Name of the captioner; empty: there is none."""
    recaption: bool = False
    """Whether the captioner describes all images, not only those without a caption."""

    def read(self, sample: Sample) -> dict[str, Any]:
        """Return `caption`, `caption_by` and, if there is something to say, `caption_note`."""
        if self.template is None:
            by = FROM_INPUT if sample.caption.strip() else None
            return {"caption": sample.caption, "caption_by": by}
        caption, note = self.template.fill({"caption": sample.caption, **sample.fields})
        by = FROM_TEMPLATE if caption else None
        return {"caption": caption, "caption_by": by, **({"caption_note": note} if note else {})}

    def written(self, row: Row) -> dict[str, Any]:
        """Return the final `caption`, `caption_by` and `caption_note` of a row."""
        made = row.get(CAPTION_MADE)
        if made is None:
            return {name: row[name] for name in ("caption", "caption_by", "caption_note")}
        note = None if made else f"{self.captioner} returned no text"
        return {"caption": made, "caption_by": self.captioner if made else None, "caption_note": note}

    def are_final(self, caption: str) -> bool:
        """Return whether a caption that was read is the one that is published."""
        return not self.captioner or bool(caption.strip() and not self.recaption)


@dataclass(frozen=True, kw_only=True)
class Captioning:
    """What a captioner does with a row; see `pipelines.stages.task.ModelTask`."""

    captions: Captions

    @property
    def seeds_by_shard(self) -> bool:
        return False

    @property
    def inputs(self) -> pa.Schema:
        return pa.schema([("pixels", PACKED)])

    @property
    def results(self) -> pa.Schema:
        return pa.schema([(CAPTION_MADE, pa.string())])

    def working_size(self, model: Any, row: Row) -> tuple[int, int]:
        return model.working_size

    def compute(self, model: Any, rows: Sequence[Row], seeds: Sequence[int]) -> Sequence[Row]:
        wanted = [at for at, row in enumerate(rows) if not self.captions.are_final(row["caption"])]
        texts = model.caption([unpack(rows[at]["pixels"]) for at in wanted]) if wanted else []
        made = dict(zip(wanted, texts, strict=True))
        return [{CAPTION_MADE: made.get(at)} for at in range(len(rows))]


def word_count(caption: str) -> int:
    """Return the number of words of a caption."""
    return len(caption.split())
