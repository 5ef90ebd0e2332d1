"""The registry of condition kinds: names, trigger texts and file formats. Imports neither torch nor numpy.

A map is a condition as people see it, a float32 array with values in [0, 1]:

    depth                   (H, W)      relative inverse depth, 0 far and 1 near
    edge                    (H, W)      edge strength of each pixel
    pose                    (H, W, 3)   the skeleton image of `unicon.pose`
    normal                  (H, W, 3)   unit surface normals (right, up, toward the camera), each from -1 to 1 as 0 to 1
    appearance, identity    (H, W, 3)   an RGB image of the same appearance, or of the same person

To add a kind, add one entry to `CONDITION_KINDS`. `unicon.conditions` derives from the `map_format` how a map becomes
a tensor and a file.

Tested in tests/unicon/test_conditions.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MapFormat = Literal["gray16", "gray8", "rgb8"]
"""How a map is stored as PNG: one channel of 16 or 8 bits, or three channels of 8 bits."""


@dataclass(frozen=True, kw_only=True)
class ConditionKind:
    """What is known about a kind of condition without importing torch."""

    name: str
    """Name of the kind, and the default name of its adapters."""
    trigger: str = ""
    """Text placed before the prompt of a condition row."""
    map_format: MapFormat
    """Format of a stored map. It also decides the shape of a map: (H, W), or (H, W, 3) for RGB."""
    encoding: str = ""
    """Meaning of the stored pixels, for people. Written into the metadata of outputs."""
    is_affine: bool = False
    """Whether a map is known only up to scale and shift. Estimates are then aligned before they are compared."""
    mirrors: bool = True
    """Whether the condition of a mirrored image is the mirrored condition. False where left and right have names."""
    has_color_preview: bool = False
    """Whether previews show the values with a color map instead of as they are stored."""

    @property
    def channels(self) -> int:
        """1 for maps (H, W), 3 for maps (H, W, 3)."""
        return 3 if self.map_format == "rgb8" else 1


_KINDS = (
    ConditionKind(
        name="depth",
        trigger="depth_map, ",
        map_format="gray16",
        encoding="16-bit PNG, relative inverse depth, 0 = far, 65535 = near; its scale differs from row to row",
        is_affine=True,
        has_color_preview=True,
    ),
    ConditionKind(
        name="edge",
        trigger="edge_map, ",
        map_format="gray8",
        encoding="8-bit gray PNG, strength of the edge at a pixel, 0 = none, 255 = full",
    ),
    ConditionKind(
        name="pose",
        trigger="pose_map, ",
        map_format="rgb8",
        encoding="RGB PNG, the drawing of the skeletons in OpenPose colors on black",
        mirrors=False,
    ),
    ConditionKind(
        name="normal",
        trigger="normal_map, ",
        map_format="rgb8",
        encoding="8-bit RGB PNG, surface normal: red = right, green = up, blue = toward the camera; 128 = 0",
        mirrors=False,
    ),
    ConditionKind(name="appearance", map_format="rgb8"),
    ConditionKind(name="identity", map_format="rgb8"),
)
CONDITION_KINDS: dict[str, ConditionKind] = {kind.name: kind for kind in _KINDS}
CONDITION_KINDS["id"] = CONDITION_KINDS["identity"]
"""Every kind of condition by name. "id" is the name that the official adapters use for identity."""
