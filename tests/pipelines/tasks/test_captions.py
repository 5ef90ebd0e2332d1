"""Captions from the input, a template or a captioner, and where each comes from."""

from typing import Any

import pytest
from PIL import Image

from pipelines.errors import SettingError
from pipelines.images.codec import pack
from pipelines.samples import Sample
from pipelines.tasks.captions import Captioning, Captions, CaptionTemplate, word_count


def test_a_template_is_filled_from_fields() -> None:
    template = CaptionTemplate("a {{photo}} of {label}, {info.size} px")
    assert template.names == ("label", "info.size")
    assert template.fill({"label": " a\ncat ", "info.size": 3}) == ("a {photo} of a cat, 3 px", "")
    assert template.fill({"label": "", "info.size": [3]}) == ("", "--caption-template: no value for label, info.size")


@pytest.mark.parametrize("text", ["a photo", "{}", "{label", "label}", "{label!r}", "{label:>9}", "{label[0]}"])
def test_other_templates_are_refused(text: str) -> None:
    with pytest.raises(SettingError, match="Rule: a text with names of fields in braces"):
        CaptionTemplate(text)


def test_captions_say_where_they_come_from() -> None:
    sample = Sample(position=0, key="a", caption="a boat", fields={"label": "cat"})
    assert Captions().read(sample) == {"caption": "a boat", "caption_by": "input"}
    assert Captions().read(Sample(position=0, key="a")) == {"caption": "", "caption_by": None}
    template = Captions(template=CaptionTemplate("{label}: {caption}"))
    assert template.read(sample) == {"caption": "cat: a boat", "caption_by": "template"}
    assert template.read(Sample(position=0, key="a"))["caption_note"] == (
        "--caption-template: no value for label, caption"
    )


class Describing:
    """A captioner that says the width of images."""

    working_size = (8, 8)

    def caption(self, images: list[Image.Image]) -> list[str]:
        return ["" if image.width == 3 else f"{image.width} wide" for image in images]


def rows(*captions: str) -> list[dict[str, Any]]:
    return [{"caption": caption, "pixels": pack(Image.new("RGB", (2 + at, 2)))} for at, caption in enumerate(captions)]


@pytest.mark.parametrize(("recaption", "made"), [(False, [None, ""]), (True, ["2 wide", ""])])
def test_a_captioner_describes_what_has_no_caption_or_everything(recaption: bool, made: list[str | None]) -> None:
    captions = Captions(captioner="blip", recaption=recaption)
    found = Captioning(captions=captions).compute(Describing(), rows("a boat", " "), [0, 0])
    assert [row["caption_made"] for row in found] == made
    kept = {"caption": "a boat", "caption_by": "input", "caption_note": None}
    if not recaption:
        assert captions.written({**kept, **found[0]}) == kept
    assert captions.written({**kept, **found[1]}) == {
        "caption": "",
        "caption_by": None,
        "caption_note": "blip returned no text",
    }
    assert captions.are_final("a boat") is not recaption and not captions.are_final("")


def test_words_are_counted() -> None:
    assert [word_count(text) for text in ("", " ", "a  red\nboat")] == [0, 0, 3]
