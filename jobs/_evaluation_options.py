"""The options of evaluate.py and evaluate_depth.py."""

from argparse import Namespace

from jobs import _cli
from jobs._arguments import integer, location, number
from pipelines.errors import SettingError, say
from unicon.condition_kinds import CONDITION_KINDS

ACCURACY, CORRELATION = "accuracy", "correlation"
CAPTION = "caption"
MAX_DEPTH_M, BASELINE_SCENES, BASELINE_SEED = 12.0, 300, 1
OF_ACCURACY = ("max_depth_m", "baseline_scenes", "baseline_seed")
"""Options that have no meaning for correlation."""
OF_SAMPLES = ("intervals", "page", "slice_by", "slice_by_word", "compare_with")
"""Options that need the scores of every sample."""


def add_condition(parser: _cli.Parser) -> None:
    """Add the options that say what is evaluated."""
    parser.add_argument(
        "--condition", required=True, metavar="NAME", help="condition to evaluate, and name of its columns"
    )
    parser.add_argument(
        "--kind",
        choices=tuple(CONDITION_KINDS),
        metavar="KIND",
        help=f"kind of the condition, if its name is another one: {', '.join(CONDITION_KINDS)}",
    )
    parser.add_argument(
        "--measure",
        choices=(ACCURACY, CORRELATION),
        default=ACCURACY,
        help="accuracy, or only the correlation of two sets of maps (default: %(default)s)",
    )


def checked(parser: _cli.Parser, options: Namespace) -> Namespace:
    """Check that the kind of the condition is known."""
    if options.kind is None and options.condition not in CONDITION_KINDS:
        parser.error(
            f"argument --condition: invalid choice: {options.condition!r} (choose from {', '.join(CONDITION_KINDS)}, "
            "or state its --kind)"
        )
    return options


def add_datasets(parser: _cli.Parser) -> None:
    """Add the options of the two datasets."""
    parser.add_argument(
        "--predictions", type=location, required=True, metavar="URI", help="output of an estimation job, or any maps"
    )
    parser.add_argument(
        "--truth",
        type=location,
        required=True,
        metavar="URI",
        help="output of render_scenes.py, or maps to compare with",
    )
    parser.add_argument(
        "--prediction-column",
        metavar="NAME",
        help="Parquet column of the predictions (default: the condition), or extension of their member in tars",
    )
    parser.add_argument(
        "--truth-column",
        metavar="NAME",
        help="the same for the truth; the truth is then compared as maps, even if it has rendered scenes",
    )
    parser.add_argument(
        "--compare-with",
        type=location,
        metavar="URI",
        help="other predictions: show the differences on the samples that both have, with intervals",
    )


def add_settings(parser: _cli.Parser) -> None:
    """Add the settings of the measures."""
    parser.add_argument(
        "--max-depth-m",
        type=number(0.1, 1000),
        metavar="X",
        help="depth of rendered scenes only: ignore pixels whose true depth is greater, and clip estimates (default: "
        f"{MAX_DEPTH_M:g}, which is beyond every wall)",
    )
    parser.add_argument(
        "--baseline-scenes",
        type=integer(1),
        metavar="N",
        help=f"number of training scenes in the mean baseline (default: {BASELINE_SCENES})",
    )
    parser.add_argument(
        "--baseline-seed",
        type=integer(0),
        metavar="N",
        help=f"seed of these training scenes (default: {BASELINE_SEED})",
    )


def add_reports(parser: _cli.Parser) -> None:
    """Add the options of what is reported, and where."""
    parser.add_argument(
        "--intervals",
        action="store_true",
        help="also print the 95 %% interval of each metric, which --json and --page always contain",
    )
    parser.add_argument(
        "--slice-by",
        action="append",
        metavar="COLUMN",
        help="also report each value of this column of the predictions or the truth; quarters if it has many different "
        "numbers. May be repeated",
    )
    parser.add_argument(
        "--slice-by-word",
        nargs="?",
        const=CAPTION,
        metavar="COLUMN",
        help=f"also report the samples with each frequent word of the captions (default column: {CAPTION})",
    )
    parser.add_argument("--json", type=location, metavar="URI", help="JSON file to write the numbers and settings to")
    parser.add_argument(
        "--page",
        type=location,
        metavar="URI.html",
        help="page to write: tables, and the worst and best samples as pictures, in one file",
    )
    parser.add_argument(
        "--picture",
        type=location,
        metavar="URI.png",
        help="PNG file to draw image, truth and estimate of eight rendered scenes to",
    )


def report_unused_options(options: Namespace, has_scenes: bool) -> None:
    """Report options that have no effect.

    Raises:
        SettingError: An output is wanted that the measure cannot give.
    """
    if options.measure == CORRELATION and options.picture:
        raise SettingError("--picture needs the images of rendered scenes. Remove it, or use --measure accuracy.")
    if options.picture and not has_scenes:
        raise SettingError("--picture needs rendered scenes as --truth. Use --page, which shows samples of any truth.")
    for name in OF_SAMPLES:
        if options.measure == CORRELATION and getattr(options, name):
            raise SettingError(f"{_option(name)} needs --measure {ACCURACY}. Remove one of the two.")
    for name in OF_ACCURACY:
        if getattr(options, name) is None:
            continue
        if options.measure == CORRELATION:
            say(f"{_option(name)} has no effect: it applies to --measure accuracy only")
        elif not has_scenes:
            say(f"{_option(name)} has no effect: it applies to rendered scenes only")
    kind = options.kind or options.condition
    if options.measure == ACCURACY and has_scenes and options.max_depth_m is not None and kind != "depth":
        say(f"--max-depth-m has no effect: it applies to depth only, and --condition is {options.condition}")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
