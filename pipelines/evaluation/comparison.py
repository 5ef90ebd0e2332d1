"""Two sets of predictions compared on the same images.

Tested in tests/jobs/test_evaluate_maps.py.
"""

from typing import NamedTuple

from pipelines.errors import SettingError
from pipelines.evaluation.accuracy import Evaluation
from pipelines.evaluation.resampling import Interval, differences


class Comparison(NamedTuple):
    """The metrics of two sets of predictions on the images that both have."""

    images: int
    left_out: int
    """Number of images that only one of them has."""
    first: dict[str, float]
    second: dict[str, float]
    intervals: dict[str, Interval]
    """Of the differences, first minus second. Those without zero are significant."""

    def differences(self) -> dict[str, float]:
        """Return the differences of the metrics, first minus second."""
        return {name: self.first[name] - self.second[name] for name in self.intervals}


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare the estimates of two evaluations on the images that both have.

    Raises:
        SettingError: They have no image in common.
    """
    place = {key: at for at, key in enumerate(second.keys)}
    common = [(at, place[key]) for at, key in enumerate(first.keys) if key in place]
    if not common:
        raise SettingError("--compare-with: the two sets of predictions have no key in common. Check the paths.")
    measure = first.measure
    ours, theirs = [first.estimates[at] for at, _ in common], [second.estimates[at] for _, at in common]
    return Comparison(
        images=len(common),
        left_out=first.images + second.images - 2 * len(common),
        first=measure.numbers(ours),
        second=measure.numbers(theirs),
        intervals=differences(measure, ours, theirs),
    )
