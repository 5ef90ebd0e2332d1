"""Python's tarfile and gzip, changed to distinguish damage from the end of a file and to limit memory per header.

The bytes after an end marker are checked: another tar continues the file (as with `tar --ignore-zeros`), zeros are
padding, and everything else is damage that must be reported.
"""

import gzip
import tarfile
from typing import IO

from pipelines.storage.damage import is_damage

DECOMPRESSED_BLOCK_BYTES = 1 << 20
ZEROS = bytes(tarfile.BLOCKSIZE)
MAX_HEADER_BYTES = 256 << 10
"""Maximum size of an extended header (long names, file attributes), which tarfile holds in memory."""
HEADER_TYPES = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)


class HeaderDamage(tarfile.ReadError):
    """A block that should be a header is not one; everything before it is intact."""


class StrictInfo(tarfile.TarInfo):
    """Reports broken and missing headers and bytes after the end marker, which tarfile takes for the end."""

    begins_tar = False
    """Whether this is the first member after an end marker."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:  # type: ignore[override]
        is_within_member = tarfile_.fileobj.tell() != tarfile_.offset  # type: ignore[union-attr, attr-defined]
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            if is_within_member:
                raise
            return cls._after_end_marker(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise HeaderDamage(f"no tar header at byte {tarfile_.offset} ({error})") from error
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise HeaderDamage("it has no end marker, so it may have been cut short") from error

    @classmethod
    def _after_end_marker(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        """Return the first member of the next tar in the file. Raises EOFHeaderError if only zeros are left."""
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
            raise HeaderDamage(f"what follows its end marker, from byte {offset_bytes} on, is not a tar") from error
        info.begins_tar = True
        return info

    @classmethod
    def _header(cls, block: bytes, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        """Return the header in the last block, or after its zeros, since padding may end within a block."""
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
        """Parse a header as tarfile does, but refuse one that claims to be huge."""
        info = super().frombuf(buf, encoding, errors)
        if info.type in HEADER_TYPES and info.size > MAX_HEADER_BYTES:
            raise tarfile.InvalidHeaderError(f"a header of {info.size} bytes")  # type: ignore[attr-defined]
        return info

    def _block(self, count: int) -> int:
        """Round up as tarfile does, but refuse negative sizes, at which older versions loop forever."""
        if count < 0:
            raise tarfile.InvalidHeaderError(f"a size of {count} bytes")  # type: ignore[attr-defined]
        return super()._block(count)  # type: ignore[misc]


class DecompressedStream:
    """The decompressed bytes of a gzip stream. Damage is reported after everything before it has been read."""

    def __init__(self, compressed: IO[bytes]) -> None:
        self._file = gzip.GzipFile(fileobj=compressed, mode="rb")
        self.damage: Exception | None = None

    def read(self, size_bytes: int) -> bytes:
        """Return the next bytes; none at the end or at the damage."""
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
        """Read to the checksum after the last byte. Raises whatever is wrong with the stream."""
        while self.read(DECOMPRESSED_BLOCK_BYTES):
            pass
        if self.damage is not None:
            raise self.damage
