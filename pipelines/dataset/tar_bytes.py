"""The bytes of a WebDataset tar."""

import io
import tarfile
from collections.abc import Iterable, Mapping

TarSample = tuple[str, Mapping[str, bytes]]
"""(key, content by extension)."""


def tar_bytes(samples: Iterable[TarSample]) -> bytes:
    """A WebDataset tar. The same samples give the same bytes: no times, no owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for key, parts in samples:
            for extension, content in parts.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
