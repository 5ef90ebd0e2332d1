"""The options of `build_corpus.py` beside those that all jobs share. `jobs._corpus` interprets their values."""

from argparse import _ArgumentGroup

from jobs import _cli, _options
from jobs._arguments import integer, location, number
from jobs._sampling import ESTIMATION_DEFAULTS


def add_options(parser: _cli.Parser) -> None:
    """Add all options."""
    data = parser.add_argument_group("data")
    _options.add_input_option(data)
    _options.add_image_column_option(data)
    _options.add_data_options(data)
    _add_condition_options(parser.add_argument_group("conditions"))
    _add_caption_options(parser.add_argument_group("captions"))
    _add_filter_options(parser.add_argument_group("filters", "Removed samples are in errors/ with the stage filter."))
    unicon = parser.add_argument_group("model of the engine unicon")
    _options.add_model_options(unicon, ESTIMATION_DEFAULTS)
    _options.add_view_option(unicon)
    work = parser.add_argument_group("work")
    _options.add_chunk_options(work)
    _add_actor_options(work)
    _options.add_device_options(work)
    _options.add_failure_options(work)
    parser.set_defaults(ensemble=None)


def _add_condition_options(conditions: _ArgumentGroup) -> None:
    conditions.add_argument(
        "--condition",
        action="append",
        default=[],
        metavar="NAME=ENGINE",
        help="column of maps and the engine that estimates them: unicon (NAME is an adapter of --model), or "
        "FAMILY:NAME with options, such as canny=controlnet-aux:canny,low_threshold=50 or depth2=transformers:DIR; "
        "weights=DIR names the weights of an annotator; see docs/engines.md. Repeatable: rows pass through the engines "
        "in this order",
    )
    conditions.add_argument(
        "--keep-column",
        action="append",
        default=[],
        metavar="NAME=KIND:COLUMN",
        help="column of maps that the input has already: its new name, its kind (depth, edge, pose, normal), and its "
        "Parquet column or tar extension, such as truth=depth:depth.png; repeatable",
    )


def _add_caption_options(captions: _ArgumentGroup) -> None:
    captions.add_argument(
        "--caption-template",
        metavar="TEXT",
        help="caption with values of the input in braces: Parquet columns, fields of JSON, {caption} itself, such as "
        "'a photo of {label}'; replaces the caption of the input",
    )
    captions.add_argument(
        "--captioner",
        type=location,
        metavar="DIR",
        help="image-to-text model of transformers for images without a caption: folder, URI or hub id, with weights in "
        "safetensors",
    )
    captions.add_argument(
        "--caption-prompt",
        metavar="TEXT",
        help="what a captioner that is a model for conversations is asked (default: Describe this image in one "
        "sentence.)",
    )
    captions.add_argument(
        "--recaption",
        action="store_true",
        help="let the captioner describe all images, also those with a caption",
    )


def _add_filter_options(filters: _ArgumentGroup) -> None:
    filters.add_argument("--min-size", type=integer(2), metavar="PX", help="smallest length of the shorter side")
    filters.add_argument(
        "--max-aspect", type=number(1), metavar="X", help="largest ratio of the longer side to the shorter one"
    )
    filters.add_argument(
        "--min-entropy",
        type=number(0, 8),
        metavar="BITS",
        help="smallest entropy of the gray levels, 0 (one color) to 8; photographs have 6 to 8",
    )
    filters.add_argument(
        "--min-sharpness",
        type=number(0),
        metavar="X",
        help="smallest variance of the Laplacian at a fixed size; blurred images have small values (column sharpness)",
    )
    filters.add_argument(
        "--drop-near-duplicates",
        action="store_true",
        help="remove images that look like another one of the whole input or of earlier runs: copies that were "
        "compressed, scaled or slightly cropped. Reads every image once before the engines start",
    )
    filters.add_argument("--min-caption-words", type=integer(1), metavar="N", help="fewest words of a caption")
    filters.add_argument("--max-caption-words", type=integer(1), metavar="N", help="most words of a caption")
    filters.add_argument(
        "--min-agreement",
        action="append",
        default=[],
        metavar="A:B=X",
        help="smallest agreement, up to 1, of two columns of one kind (column agreement_A_B), such as "
        "depth:depth2=0.9: the correlation of their maps, for depth after the best scale and shift; repeatable",
    )
    filters.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="CONDITION",
        help="keep only rows for which a condition on columns holds, such as 'width >= 512 and not label == "
        '"sketch"\': comparisons, in, and, or, not, numbers, texts, and the columns of scores, captions, agreements '
        "(see docs/corpus.md) or the input; repeatable",
    )


def _add_actor_options(work: _ArgumentGroup) -> None:
    work.add_argument(
        "--actors",
        action="append",
        default=[],
        metavar="[NAME=]N",
        help="number of actors of the engine of a condition, or of the captioner (caption=N), or MIN:MAX; without a "
        "name, of all other engines; repeatable. Give more to the slowest engine, which sets the rate: the report "
        "names it (default: one per GPU for each engine; one without GPUs)",
    )
    work.add_argument(
        "--num-gpus-per-actor",
        action="append",
        default=[],
        metavar="[NAME=]X",
        help="GPUs, or a fraction of one, for each actor of an engine, as in --actors; repeatable (default: the "
        "engines with weights share each GPU equally, and 0 without GPUs)",
    )
