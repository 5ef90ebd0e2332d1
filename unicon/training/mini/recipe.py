"""The recipe of `mini`, the embedded model: every number that decides what it becomes.

`mini` shows that the code works and how well. It knows rendered scenes only and is no model for photographs.

Tested in tests/unicon/training/mini/test_train.py and tests/jobs/test_train_mini.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from unicon.training.fit import FitConfig
from unicon.training.mini.pretrain import PretrainSampling
from unicon.training.pairs import PairSampling
from unicon.training.single_step import SingleStepSampling

SQUARE, WIDE, TALL = (128, 128), (160, 96), (96, 160)
"""Sizes of the scenes, (width, height) in pixels."""
STAGES = ("vae", "pretrain", "align", "together", "appearance")
JOINT = PairSampling(
    batch_size=24,
    text_dropout=0.05,
    caption_dropout=0.3,
    clean_image_fraction=0.3,
    clean_condition_fraction=0.45,
    noisy_condition_fraction=0.8,
    unjoined_fraction=0.1,
    min_snr_gamma=None,
    alignment_weight=0.1,
    heads_weight=1.0,
)
"""Sampling of the steps in which everything is trained together."""


@dataclass(frozen=True, kw_only=True)
class MiniRecipe:
    """Every number that decides what `mini` becomes."""

    scenes: dict[tuple[int, int], int] = field(default_factory=lambda: {SQUARE: 12000, WIDE: 1000, TALL: 1000})
    """Scenes rendered, by (width, height) in pixels."""
    seed: int = 1
    """Seed of the square scenes. The other sizes have seed + 9 and seed + 10."""
    shares: dict[str, float] = field(default_factory=lambda: {"depth": 0.75, "edge": 0.13, "pose": 0.12})
    """Adapter -> its share of the steps."""
    vae: FitConfig = FitConfig(steps=3000, learning_rate=2e-3, warmup_steps=50, ema_decay=0.995)
    vae_batch_size: int = 16
    """Crops per step."""
    vae_crop_px: int = 64
    validation_scenes: int = 16
    """Number of scenes of another seed on which every checkpoint is measured."""
    block_out_channels: tuple[int, ...] = (64, 128, 128)
    rank: int = 12
    """Rank of the adapters' LoRAs."""
    pretrain: FitConfig = FitConfig(
        steps=2400,
        learning_rate=1.5e-3,
        matrix_learning_rate=8e-3,
        warmup_steps=30,
        final_learning_rate_fraction=0.1,
        ema_decay=0.99,
        checkpoint_every=100,
        log_every=10,
    )
    pretrain_sampling: PretrainSampling = PretrainSampling(batch_size=32, heads_fraction=0.8125)
    heads: dict[str, float] = field(default_factory=lambda: {"depth": 1.0, "edge": 0.25, "pose": 0.5})
    """Weights of the conditions in `ConditionHeads`, in every stage."""
    align: FitConfig = FitConfig(
        steps=150,
        learning_rate=1e-3,
        matrix_learning_rate=6e-3,
        warmup_steps=10,
        final_learning_rate_fraction=0.3,
        ema_decay=0.9,
        checkpoint_every=50,
        log_every=10,
    )
    """The stage in which joint attention learns positions. It learns from every token, so 4 pairs per step suffice."""
    aligning: PairSampling = replace(
        JOINT, batch_size=4, clean_image_fraction=0.9, clean_condition_fraction=0.1, unjoined_fraction=0.0,
        alignment_weight=1.0, heads_weight=0.5,
    )  # fmt: skip
    together: FitConfig = FitConfig(
        steps=800,
        learning_rate=8e-4,
        matrix_learning_rate=4e-3,
        warmup_steps=30,
        final_learning_rate_fraction=0.03,
        ema_decay=0.99,
        checkpoint_every=200,
        log_every=10,
    )
    sampling: PairSampling = JOINT
    single_step_share: float = 0.65
    """Share of the joint training steps that train estimates in one step, of all adapters, through the decoder. The
    others train pairs."""
    single_step: SingleStepSampling = SingleStepSampling(
        batch_size=12,
        decoded_fractions={"depth": 0.25, "edge": 0.25, "pose": 0.34},
        map_weights={"depth": 2.0, "edge": 0.2, "pose": 3.0},
        latent_weights={"depth": 3.0},
        heads_weight=0.5,
    )
    person_share: float = 0.5
    """Fraction of the scenes of these steps that show a person, which are decoded first."""
    appearance: FitConfig = FitConfig(
        steps=600,
        learning_rate=7e-4,
        matrix_learning_rate=3e-3,
        warmup_steps=20,
        final_learning_rate_fraction=0.05,
        ema_decay=0.98,
        checkpoint_every=200,
        log_every=10,
    )
    """The stage in which the appearance adapter is trained, with the UNet frozen."""
    appearance_scenes: int = 3000
    """Number of square scenes of `seed`, each in two views."""
