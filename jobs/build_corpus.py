#!/usr/bin/env python3
"""Build a paired corpus from images in one pass: maps of several conditions, captions and scores, filtered."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engines.spec import UNICON
from jobs import _cli, _corpus, _corpus_options, _engines
from pipelines.errors import SettingError

if TYPE_CHECKING:
    from pipelines.dataset.card import Card
    from pipelines.readers.sources import ImageShards
    from pipelines.runs.corpus_run import CorpusRun
    from pipelines.tasks.corpus import Corpus

CODE_VERSION = "1"
"""Written to every row and part of the configuration hash. Increment it when equal settings produce different rows."""

EXAMPLES = """
examples:
  # edges and depth of a folder of images, without copies, small and blurred images
  python jobs/build_corpus.py --input photos/ --output corpus/ --condition canny=controlnet-aux:canny \\
      --condition depth=unicon --min-size 512 --min-sharpness 50 --drop-near-duplicates

  # two depth estimators whose maps must agree; three actors for the slower one; captions by a model
  python jobs/build_corpus.py --input 's3://bucket/{00000..00099}.tar' --output s3://bucket/corpus \\
      --condition depth=unicon --condition depth2=transformers:/models/depth-anything-v2-large \\
      --min-agreement depth:depth2=0.9 --actors depth2=3 --captioner /models/blip-image-captioning-large

  # rendered scenes with their true depth; captions from fields, and a condition on columns
  python jobs/build_corpus.py --input scenes/ --output corpus/ --condition canny=controlnet-aux:canny \\
      --keep-column truth=depth:depth.png --caption-template 'a render of {room}' --keep 'room != "cellar"'

Run the same command again to continue after a crash or Ctrl-C, or to process files that were added since.

output:
  data/*.parquet     rows: key, image, one column of maps for each condition, scores (entropy, sharpness, phash,
                     agreement_A_B), caption, caption_by, sizes, and which engine made each column
  errors/*.parquet   samples that failed or were filtered: key, shard, position, stage, reason
  README.md          columns, settings, and how many samples each filter has removed
  preview.png, report.html
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES + _cli.EXIT_CODES)
    _corpus_options.add_options(parser)
    options = parser.parse_args(arguments)
    if not (options.condition or options.keep_column or options.captioner):
        raise SettingError(
            "a corpus has at least one --condition NAME=ENGINE, --keep-column NAME=KIND:COLUMN, or --captioner. Give "
            "one, such as --condition canny=controlnet-aux:canny."
        )
    wrong = _engines.given_of_unicon(parser, options)
    if wrong and not any(text.endswith(f"={UNICON}") for text in options.condition):
        raise SettingError(
            f"{wrong[0]} belongs to the engine {UNICON}, which no --condition NAME={UNICON} uses. Remove it; options "
            "of other engines follow their names, such as canny=controlnet-aux:canny,low_threshold=50."
        )
    return options


def corpus_run(
    options: Namespace, engines: list[_corpus.Engine] | None = None
) -> "tuple[CorpusRun, list[_corpus.Engine]]":
    """Return the job of a command line and its engines, which are found and checked unless they are given."""
    from pipelines.runs.corpus_run import CorpusRun

    captions = _corpus.captions_of(options)
    estimating = _corpus.engines_of(options) if engines is None else engines
    engines = [*estimating, *_corpus.captioner_of(options, captions)]
    task = _corpus.task_of(options, engines, captions)
    provenance = {name: value for engine in engines for name, value in engine.provenance.items()}
    run = CorpusRun(
        job="build_corpus",
        task=task,
        source=_source(options, task),
        engines=tuple(engine.stage for engine in engines),
        drops_near_duplicates=options.drop_near_duplicates,
        provenance={**provenance, "seed": options.seed, "code_version": CODE_VERSION},
        other_settings={
            **_settings(options),
            **{name: value for each in engines for name, value in each.settings.items()},
        },
        row_format=_cli.row_format_of(options),
        gives_up=options.give_up,
        card=_card(task),
    )
    return run, engines


def _settings(options: Namespace) -> dict[str, Any]:
    """Return the settings that change a row, beside the engines; open ones are left out."""
    names = (
        "keep_column", "caption_template", "recaption", "min_size", "max_aspect", "min_entropy", "min_sharpness",
        "drop_near_duplicates", "min_caption_words", "max_caption_words", "min_agreement", "keep",
    )  # fmt: skip
    found = {name: value for name in names if (value := getattr(options, name)) not in (None, False, [])}
    columns = [text.partition("=")[0] for text in options.condition]
    return {"conditions": columns, **found, **_cli.data_settings(options, "image_column")}


def _source(options: Namespace, task: "Corpus") -> "ImageShards":
    from dataclasses import replace

    from pipelines.readers.sources import ImageShards

    named = _corpus.fields_of(task)
    media = {each.source: f"--keep-column {each.name}={each.kind}:{each.source}" for each in task.kept}
    columns = _cli.columns_of(options, options.image_column, tuple(media))
    return ImageShards(columns=replace(columns, fields=tuple(named)), media_options=media, field_options=named)


def _card(task: "Corpus") -> "Card":
    from pipelines.dataset.card import KEY_TEXT, Card
    from pipelines.tasks.corpus import COLUMN_TEXTS, agreement_column

    names = [each.name for each in task.conditions]
    kept = {each.name for each in task.kept}
    columns = {
        "`key`": KEY_TEXT,
        "`image`": "the original image file (JPEG, PNG, WebP); other formats are converted to PNG",
        **{
            f"`{each.name}`": f"same size as the image: {each.encoding}{'; from the input' * (each.name in kept)}"
            for each in task.conditions
        },
        **COLUMN_TEXTS,
        **{
            f"`{agreement_column(*pair)}`": f"agreement of {pair[0].name} and {pair[1].name}, 1: equal up to scale"
            for pair in task.pairs
        },
    }
    kinds = {each.name: each.kind for each in task.conditions}
    title = f"Corpus of images with {', '.join(names)}" if names else "Corpus of images with captions"
    return Card(title=title, task="image-to-image", columns=columns, previews={"image": "", **kinds})


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parse(arguments)
    run, engines = corpus_run(options)
    from pipelines.runs import runner

    return runner.run_job(run.as_job(), _corpus.request_of(options, engines))


if __name__ == "__main__":
    _cli.finish(main)
