# diffusers declares its outputs as tuples and its configurations as plain dictionaries.
# pyright: reportArgumentType=false
"""How close a small decoder comes to the autoencoder's own, and how much less it costs, on held-out maps.

Tested in tests/unicon/training/test_decoder.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from unicon.autoencoders import Autoencoder, decode_scaled
from unicon.conditions import CONDITIONS
from unicon.decoders import MapDecoder
from unicon.metrics.depth import MAX_DEPTH_M, depth_metrics
from unicon.metrics.edge import best_edge_metrics, edge_counts
from unicon.training.decoder_maps import CODED_TOGETHER, CodedMaps

TIMED_RUNS = 5
EDGE_LEVEL = 0.5
"""Strength from which on a pixel of the autoencoder's edge map counts as an edge."""


@dataclass(frozen=True, kw_only=True)
class DecoderComparison:
    """A small decoder beside the decoder of the autoencoder."""

    difference: Mapping[str, float]
    """Kind -> mean absolute difference of the maps, whose values are in [0, 1]."""
    depth_abs_rel: float | None
    """AbsRel of the depth maps, with those of the autoencoder as the truth, spread over 1 to 12 meters."""
    edge_f1: float | None
    """F1 of the edges, with those of the autoencoder as the truth."""
    tflop: float
    """TFLOP of a map with the small decoder."""
    full_tflop: float
    """The same with that of the autoencoder."""
    seconds: float
    """Seconds of a map with the small decoder; both were timed in turns."""
    full_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The values as JSON takes them."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The values as text for people."""
        named = {"depth": ("AbsRel", self.depth_abs_rel), "edge": ("F1", self.edge_f1)}
        found = []
        for kind, difference in self.difference.items():
            measure, value = named.get(kind, ("", None))
            found.append(f"{kind}: mean difference {difference:.4f}" + (f", {measure} {value:.4f}" if value else ""))
        return [
            *found,
            f"a map costs {self.tflop * 1000:.3g} GFLOP instead of {self.full_tflop * 1000:.3g}, "
            f"1/{self.full_tflop / self.tflop:.1f}, and {self.seconds * 1000:.3g} ms instead of "
            f"{self.full_seconds * 1000:.3g}, 1/{self.full_seconds / self.seconds:.1f}",
        ]


@torch.no_grad()
def compare(vae: Autoencoder, decoder: MapDecoder, maps: Mapping[str, CodedMaps]) -> DecoderComparison:
    """Compare a decoder with that of an autoencoder on held-out maps, by kind. Both are on one device."""
    full = {kind: _as_maps(kind, coded.decoded) for kind, coded in maps.items()}
    small = {kind: _as_maps(kind, _decode(decoder, coded.latents)) for kind, coded in maps.items()}
    rows = next(iter(maps.values())).latents[: CODED_TOGETHER.get(vae.device.type, 4)].to(vae.device)
    calls = (lambda: decoder(rows.to(decoder.dtype)), lambda: decode_scaled(vae, rows.to(vae.dtype)))
    (tflop, full_tflop), (seconds, full_seconds) = [_tflop(call) for call in calls], _seconds(*calls)
    return DecoderComparison(
        difference={kind: float(np.abs(small[kind] - full[kind]).mean()) for kind in maps},
        depth_abs_rel=_abs_rel(small["depth"], full["depth"]) if "depth" in maps else None,
        edge_f1=_f1(small["edge"], full["edge"]) if "edge" in maps else None,
        tflop=tflop / len(rows),
        full_tflop=full_tflop / len(rows),
        seconds=seconds / len(rows),
        full_seconds=full_seconds / len(rows),
    )


def _decode(decoder: MapDecoder, latents: Tensor) -> Tensor:
    parts = latents.split(CODED_TOGETHER.get(decoder.device.type, 4))
    return torch.cat([decoder(part.to(decoder.device, decoder.dtype)).cpu() for part in parts])


def _as_maps(kind: str, decoded: Tensor) -> np.ndarray:
    return np.stack([CONDITIONS[kind].from_model(row) for row in decoded])


def _abs_rel(small: np.ndarray, full: np.ndarray) -> float:
    depths_m = 1 / (1 / MAX_DEPTH_M + full * (1 - 1 / MAX_DEPTH_M))
    return float(np.mean([depth_metrics(one, truth).abs_rel for one, truth in zip(small, depths_m, strict=True)]))


def _f1(small: np.ndarray, full: np.ndarray) -> float:
    return best_edge_metrics([edge_counts(one, truth >= EDGE_LEVEL) for one, truth in zip(small, full, strict=True)]).f1


def _tflop(call: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e12


def _seconds(*calls: Callable[[], Tensor]) -> list[float]:
    """The median time of each call. They run in turns, so that a busy machine slows all of them."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(TIMED_RUNS):
        for call, times in zip(calls, taken, strict=True):
            began = time.perf_counter()
            call().sum().item()  # waits for the device
            times.append(time.perf_counter() - began)
    return [median(times) for times in taken]
