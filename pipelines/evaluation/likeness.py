"""How alike two sets of maps are: the correlation of every map with its partner, and with somebody else's.

A picture made to a condition is judged so: estimate its condition and correlate that with the condition asked for. The
number for partners means something only when that for strangers is much lower.
"""

from dataclasses import dataclass, field

import numpy as np

from pipelines.errors import SettingError
from pipelines.evaluation.join import MAP_MEMBERS, TARS, Join
from unicon.images import resize_map
from unicon.metrics import correlation


@dataclass(kw_only=True)
class Likeness:
    """Pearson's correlations of maps."""

    join: Join
    matched: list[float] = field(default_factory=list)
    """Of every estimate with its own truth."""
    shuffled: list[float] = field(default_factory=list)
    """Of every estimate with the truth of the next pair; the last with that of the first."""
    left_out: int = 0
    """Pairs whose truth is the same everywhere, such as the pose of nobody: nothing can correlate with it."""

    def means(self) -> dict[str, float]:
        """Means over the pairs."""
        return {"matched": float(np.mean(self.matched)), "shuffled": float(np.mean(self.shuffled))}


def compare_maps(predictions: str, truth: str, condition: str) -> Likeness:
    """Correlate every prediction with its truth and with the next one's.

    Args:
        predictions: URI of Parquet files with the columns `key` and the condition's name.
        truth: URI of the same, or of tars of rendered scenes; a map of another size is scaled to the estimate's.
        condition: whose maps.

    Raises:
        SettingError: one of the two is not what it should be, or they have fewer than two keys in common.
    """
    member = MAP_MEMBERS[condition]
    join = Join(
        condition=condition,
        predictions=predictions,
        truth=truth,
        members=(member,),
        truth_formats=(*TARS, "parquet"),
    )
    found = Likeness(join=join)
    first_truth = previous = None
    for pair in join.pairs():
        asked = join.decoded("--truth", pair.key, pair.truth[member])
        if asked.min() == asked.max():
            found.left_out += 1
            continue
        found.matched.append(_alike(pair.estimate, asked))
        if previous is None:
            first_truth = asked
        else:
            found.shuffled.append(_alike(previous, asked))
        previous = pair.estimate
    if len(found.matched) < 2 or previous is None or first_truth is None:
        raise SettingError(
            f"shuffled pairs need at least two keys in common whose truth is not the same everywhere, got "
            f"{len(found.matched)}; {found.left_out} are. Predict more samples."
        )
    found.shuffled.append(_alike(previous, first_truth))
    return found


def _alike(estimate: np.ndarray, truth: np.ndarray) -> float:
    return correlation(estimate, resize_map(truth, (estimate.shape[1], estimate.shape[0])))
