"""The shard format of WebDataset tars, plain or gzipped.

Tested in tests/pipelines/readers/test_tar.py, test_misfits.py and test_captions.py.
"""

from collections.abc import Iterator, Mapping, Sequence

from pipelines.errors import SettingError, ShardChangedError, clipped
from pipelines.readers.shard_index import MeasuredShard, Shard
from pipelines.readers.tar import Member, is_compressed, read_tar
from pipelines.readers.tar_index import load_tar_index
from pipelines.readers.tar_samples import has_caption, read_tar_samples
from pipelines.samples import Chunk, Columns, Sample
from pipelines.storage.store import Store

CHECKED_SAMPLES = 16
"""Number of samples at the start of a tar that are checked for a member that a setting names."""
CHECKED_TARS = 4
"""Number of tars that are checked for an image or a caption that a setting names, because single tars may lack it."""


class TarFormat:
    """See `pipelines.readers.formats.ShardFormat`."""

    names: tuple[str, ...] = ("tar", "tar.gz")
    endings: Mapping[str, str] = {".tar": "tar", ".tar.gz": "tar.gz", ".tgz": "tar.gz"}
    describes: tuple[str, ...] = ()
    yields_to_others = False
    has_keys = False
    has_named_image = True
    has_predicates = False
    is_readable_before_damage = True

    def measure(self, shard: Shard, columns: Columns, output: str, store: Store) -> MeasuredShard:
        """Build the index, or load the one that an earlier run has kept in the output."""
        shard, index = load_tar_index(shard, output, store)
        return MeasuredShard.of(shard, index, index.samples, index.damage)

    def read(self, chunk: Chunk, columns: Columns, store: Store) -> Iterator[Sample]:
        """Read the samples before the damage, if there is any."""
        return read_tar_samples(chunk, columns, store)

    def check_media(self, shards: Sequence[Shard], options: Mapping[str, str], store: Store) -> None:
        """Check the first samples of the first tar that has any."""
        for shard in shards:
            if there := _extensions(shard, store):
                _check_extensions(there, shard, options)
                return

    def check_image(self, shards: Sequence[Shard], wanted: str, store: Store) -> None:
        """Check the first samples of the first tars, of which one must have the image."""
        there: set[str] = set()
        for shard in shards[:CHECKED_TARS]:
            there |= _extensions(shard, store)
            if any(f".{extension}".endswith(f".{wanted.lower().lstrip('.')}") for extension in there):
                return
        if there:
            _check_extensions(there, shards[0], {wanted: f"--image-column {wanted!r}"})

    def check_caption(self, shards: Sequence[Shard], wanted: str, store: Store, option: str) -> bool:
        """Check the first samples of the first tars, of which one must have the caption as a file or JSON field."""
        seen: list[list[Member]] = []
        for shard in shards[:CHECKED_TARS]:
            seen += _first_samples(shard, store)
            if any(has_caption(members, wanted) for members in seen):
                return True
        if seen:
            there = sorted({f".{member.extension}" for members in seen for member in members})
            raise SettingError(
                f"{option} {wanted!r}: the first samples of {shards[0].uri} have no file "
                f".{wanted.lstrip('.')}, nor such a field in a .json file. Their members: "
                f"{clipped(', '.join(there))}. Correct the name."
            )
        return False


TAR = TarFormat()


def _first_samples(shard: Shard, store: Store) -> list[list[Member]]:
    """Return the members of a tar's first samples, JSON with its content. Empty if the samples are damaged."""
    found: list[list[Member]] = []
    try:
        compressed = is_compressed(shard.uri, store)
        samples = read_tar(
            shard.uri, compressed, 0, CHECKED_SAMPLES, is_wanted=lambda name: name.endswith("json"), store=store
        )
        found.extend(members for _, _, members in samples)
    except ShardChangedError as error:  # the tar has fewer samples than CHECKED_SAMPLES, or is damaged
        return [] if error.__cause__ is not None else found
    return found


def _extensions(shard: Shard, store: Store) -> set[str]:
    """Return the extensions of the members of a tar's first samples."""
    return {member.extension for members in _first_samples(shard, store) for member in members}


def _check_extensions(there: set[str], shard: Shard, options: Mapping[str, str]) -> None:
    for name, option in options.items():
        ending = f".{name.lower().lstrip('.')}"
        if not any(f".{extension}".endswith(ending) for extension in there):
            raise SettingError(
                f"{option}: no .{name.lstrip('.')} in the first samples of {shard.uri}. Their members: "
                f"{clipped(', '.join(sorted('.' + extension for extension in there)))}."
            )
