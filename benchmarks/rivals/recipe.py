"""The numbers with which all rivals are trained.

The optimizer and the learning rates are those of the adapters of `mini`; the learning rates of no rival were tuned.
"""

from __future__ import annotations

from unicon.training.fit import FitConfig
from unicon.training.pairs import PairSampling

FIT = FitConfig(
    steps=1, learning_rate=7e-4, matrix_learning_rate=3e-3, warmup_steps=20, ema_decay=0.98, checkpoint_every=50,
    log_every=10,
)  # fmt: skip
"""How everything is trained, but for the number of steps."""
CAPTION_DROPOUT = 0.3
"""Fraction of the rows without a caption."""
DECODED_SHARE, MAP_WEIGHT, LATENT_WEIGHT = 0.25, 2.0, 3.0
"""For losses of estimated depth: the share that is decoded and compared as maps, and the weights of both parts."""


def pair_sampling(batch_size: int) -> PairSampling:
    """Pairs of the published recipe of UniCon: the timesteps of an image and its depth map are independent.

    The loss is not weighted, since the base predicts velocities, and captions are dropped as for the other rivals too.
    """
    return PairSampling(batch_size=batch_size, caption_dropout=CAPTION_DROPOUT, min_snr_gamma=None)
