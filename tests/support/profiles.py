"""Small ICC profiles for tests, written byte by byte: wide-gamut RGB, linear gray, table-based CMYK."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
"""XYZ of red, green and blue, adapted to D50."""
SRGB = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))


def rgb_profile(primaries: Sequence[tuple[float, float, float]], gamma: float | None = None) -> bytes:
    """Return an RGB profile with these primaries and the tone curve of sRGB or a power curve."""
    curve = _srgb_curve() if gamma is None else _gamma(gamma)
    tags = {name: _xyz(values) for name, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    tags |= {name: curve for name in (b"rTRC", b"gTRC", b"bTRC")}
    return _profile(b"RGB ", b"XYZ ", b"mntr", {**tags, b"wtpt": _xyz(D50)})


def gray_profile(gamma: float) -> bytes:
    """Return a gray profile with a power curve."""
    return _profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": _gamma(gamma), b"wtpt": _xyz(D50)})


def cmyk_profile(lightness: float) -> bytes:
    """Return a CMYK profile that maps every ink to a gray of this L*, and blank paper to white."""
    table = np.zeros((2, 2, 2, 2, 3), np.uint8)
    table[...] = (round(lightness * 2.55), 128, 128)
    table[0, 0, 0, 0] = (255, 128, 128)
    identity = struct.pack(">9i", *(65536 if at % 4 == 0 else 0 for at in range(9)))
    ramp = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + ramp * 4 + table.tobytes() + ramp * 3
    return _profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": lut, b"wtpt": _xyz(D50)})


def _profile(space: bytes, connection: bytes, kind: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    directory, data = b"", b""
    start = 128 + 4 + 12 * (len(tags) + 1)
    for name, content in {b"desc": _description(), **tags}.items():
        directory += name + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    body = struct.pack(">I", len(tags) + 1) + directory + data
    header = struct.pack(">I4s4s4s4s4s12s4s", 128 + len(body), bytes(4), b"\x02\x40\0\0", kind, space, connection,
                         struct.pack(">6H", 2026, 1, 1, 0, 0, 0), b"acsp")  # fmt: skip
    return header.ljust(68, b"\0") + struct.pack(">3i", *(round(value * 65536) for value in D50)) + bytes(48) + body


def _description() -> bytes:
    return b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def _gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


def _srgb_curve() -> bytes:
    levels = np.arange(1024) / 1023
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return b"curv" + bytes(4) + struct.pack(">I", 1024) + np.round(linear * 65535).astype(">u2").tobytes()
