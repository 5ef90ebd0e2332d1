"""Python's tarfile and gzip, made to tell damage from the end of a file, and to take little memory at any header.

What lies behind an end mark is looked at: another tar goes on (as with `tar --ignore-zeros`), zeros are padding, and
everything else is damage that must be told.
"""

import gzip
import tarfile
from typing import IO

from pipelines.damage import is_damage

UNPACKED_AT_ONCE_BYTES = 1 << 20
ZEROS = bytes(tarfile.BLOCKSIZE)
MAX_HEADER_BYTES = 256 << 10
"""Of an extended header: a long name, attributes of a file. tarfile holds them in memory."""
HEADER_TYPES = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)


class HeaderDamage(tarfile.ReadError):
    """A header that is none: everything before it is whole."""


class StrictInfo(tarfile.TarInfo):
    """Reports a broken or missing header, and bytes behind the end mark; tarfile takes all of them for the end."""

    begins_tar = False
    """Whether it is the first member behind an end mark."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:  # type: ignore[override]
        is_within_member = tarfile_.fileobj.tell() != tarfile_.offset  # type: ignore[union-attr, attr-defined]
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            if is_within_member:
                raise
            return cls._behind_end_mark(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise HeaderDamage(f"no tar header at byte {tarfile_.offset} ({error})") from error
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise HeaderDamage("it has no end mark, so it may have been cut short") from error

    @classmethod
    def _behind_end_mark(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        """The first member of the next tar of the file. Raises tarfile's EOFHeaderError where only zeros are left."""
        file = tarfile_.fileobj
        while (block := file.read(tarfile.BLOCKSIZE)) == ZEROS:  # type: ignore[union-attr]
            pass
        if not any(block):
            raise tarfile.EOFHeaderError("end of file header")  # type: ignore[attr-defined]
        offset_bytes = file.tell() - len(block)  # type: ignore[union-attr]
        tarfile_.pax_headers = {}
        try:
            info = cls._header(block, tarfile_)
            info = info._proc_member(tarfile_)  # type: ignore[attr-defined]
        except tarfile.HeaderError as error:
            raise HeaderDamage(f"behind its end mark, from byte {offset_bytes} on, is what is no tar") from error
        info.begins_tar = True
        return info

    @classmethod
    def _header(cls, block: bytes, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        """The header in the block that was read last, or where its zeros end: padding need not be whole blocks."""
        file, names = tarfile_.fileobj, (tarfile_.encoding or "utf-8", tarfile_.errors or "strict")
        try:
            info = cls.frombuf(block, *names)
        except tarfile.InvalidHeaderError:  # type: ignore[attr-defined]
            rest = block.lstrip(b"\0")
            info = cls.frombuf(rest + file.read(len(block) - len(rest)), *names)  # type: ignore[union-attr]
        info.offset = file.tell() - tarfile.BLOCKSIZE  # type: ignore[union-attr]
        return info

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
