"""The likeness of two sets of maps: the correlation of every map with its partner, and with the partner of another.

This measures how well generated images follow their conditions: estimate the condition of an image and correlate it
with the condition that was requested. The correlation of matched pairs is meaningful only if that of shuffled pairs is
much lower.

Tested in tests/pipelines/evaluation/test_join.py and tests/jobs/test_evaluate.py.
"""

from dataclasses import dataclass, field

import numpy as np

from pipelines.errors import SettingError
from pipelines.evaluation.join import MAP, Join
from pipelines.evaluation.resampling import Interval, mean_interval
from unicon.images import resize_map
from unicon.metrics import correlation


@dataclass(kw_only=True)
class Likeness:
    """Pearson correlations of maps."""

    join: Join
    matched: list[float] = field(default_factory=list)
    """Correlation of every estimate with its own truth."""
    shuffled: list[float] = field(default_factory=list)
    """Correlation of every estimate with the truth of the next pair, and of the last with that of the first."""
    left_out: int = 0
    """Pairs with a constant truth, such as the pose of an image without people, whose correlation is undefined."""

    def means(self) -> dict[str, float]:
        """Return the means over the pairs."""
        return {"matched": float(np.mean(self.matched)), "shuffled": float(np.mean(self.shuffled))}

    def intervals(self) -> dict[str, Interval]:
        """Return the confidence intervals of the means."""
        return {"matched": mean_interval(self.matched), "shuffled": mean_interval(self.shuffled)}


def compare_maps(join: Join) -> Likeness:
    """Correlate every prediction with its truth and with the next truth.

    Maps of the truth are resized to the size of the estimate.

    Raises:
        SettingError: An input is not what it should be, or they have fewer than two keys in common.
    """
    found = Likeness(join=join)
    first_truth = previous = None
    for pair in join.pairs():
        asked = join.decoded("--truth", pair.key, pair.truth[MAP])
        if asked.min() == asked.max():
            found.left_out += 1
            continue
        found.matched.append(_correlation(pair.estimate, asked))
        if previous is None:
            first_truth = asked
        else:
            found.shuffled.append(_correlation(previous, asked))
        previous = pair.estimate
    if len(found.matched) < 2 or previous is None or first_truth is None:
        raise SettingError(
            f"shuffled pairs need at least two common keys whose truth is not constant; got {len(found.matched)}, and "
            f"{found.left_out} with a constant truth. Predict more samples."
        )
    found.shuffled.append(_correlation(previous, first_truth))
    return found


def _correlation(estimate: np.ndarray, truth: np.ndarray) -> float:
    return correlation(estimate, resize_map(truth, (estimate.shape[1], estimate.shape[0])))
