"""The bytes of a WebDataset tar. Tested in tests/pipelines/dataset/test_webdataset.py."""

import io
import tarfile
from collections.abc import Iterable, Mapping

TarSample = tuple[str, Mapping[str, bytes]]
"""(key, contents by extension)."""


def tar_bytes(samples: Iterable[TarSample]) -> bytes:
    """Encode samples as a WebDataset tar, without times and owners, so that equal samples give equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for key, parts in samples:
            for extension, content in parts.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
