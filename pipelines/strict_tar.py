"""Python's tarfile and gzip, made to tell damage from the end of a file, and to take little memory at any header."""

import gzip
import tarfile
from typing import IO

from pipelines.damage import is_damage

UNPACKED_AT_ONCE_BYTES = 1 << 20
MAX_HEADER_BYTES = 256 << 10
"""Of an extended header: a long name, attributes of a file. tarfile holds them in memory."""
HEADER_TYPES = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)


class HeaderDamage(tarfile.ReadError):
    """A header that is none: everything before it is whole."""


class StrictInfo(tarfile.TarInfo):
    """Reports a broken or missing header; tarfile takes both for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:  # type: ignore[override]
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise HeaderDamage(f"no tar header at byte {tarfile_.offset} ({error})") from error
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise HeaderDamage("it has no end mark, so it may have been cut short") from error

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:  # type: ignore[override]
        """As tarfile, but no header is loaded that claims to be huge."""
        info = super().frombuf(buf, encoding, errors)
        if info.type in HEADER_TYPES and info.size > MAX_HEADER_BYTES:
            raise tarfile.InvalidHeaderError(f"a header of {info.size} bytes")  # type: ignore[attr-defined]
        return info

    def _block(self, count: int) -> int:
        """As tarfile; older versions go back, and on for ever, where a size is negative."""
        if count < 0:
            raise tarfile.InvalidHeaderError(f"a size of {count} bytes")  # type: ignore[attr-defined]
        return super()._block(count)  # type: ignore[misc]


class Unpacked:
    """The bytes behind a gzip stream; where they break off, what could be unpacked comes first, then the damage."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._file = gzip.GzipFile(fileobj=packed, mode="rb")
        self.damage: Exception | None = None

    def read(self, size_bytes: int) -> bytes:
        """The next bytes; none at the end and at the damage."""
        if self.damage is not None:
            return b""
        try:
            return self._file.read1(size_bytes)
        except Exception as error:
            if not is_damage(error):
                raise
            self.damage = error
            return b""

    def verify(self) -> None:
        """Read on to the checksum behind the last byte. Raises what is wrong with the stream."""
        while self.read(UNPACKED_AT_ONCE_BYTES):
            pass
        if self.damage is not None:
            raise self.damage
