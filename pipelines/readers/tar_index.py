"""The index of a tar, built once and kept in the output for later runs."""

import dataclasses
import json
from typing import Any

from pipelines.readers.gzip_index import build_gzip_index, gzip_index_name, is_available
from pipelines.readers.shard_index import INDEX_STRIDE, Shard, ShardIndex, index_uri
from pipelines.readers.tar import index_tar, is_compressed
from pipelines.storage.damage import is_damage
from pipelines.storage.store import Store

INDEX_VERSION = 2
"""Version of kept indexes. Those of version 1 ended at the first end marker of a tar; they are built again."""
GZIP_INDEX_FIELD = "gzip_points"
"""The name of `ShardIndex.gzip_index_uri` in the file, which holds only the file name: an output may be moved."""


def load_tar_index(shard: Shard, output: str, store: Store) -> tuple[Shard, ShardIndex]:
    """Return the index of a tar, and the shard with the format of its content, whatever its name says.

    The index is read from the output if it is there. Otherwise it is built and kept for the next run.
    """
    uri = index_uri(output, shard.uri, shard.fingerprint)
    kept = _kept_index(uri, store)
    if kept is None:
        compressed = is_compressed(shard.uri, store)
        kept = compressed, _new_index(shard, compressed, uri, store)
    compressed, index = kept
    if index.gzip_index_uri:
        index = dataclasses.replace(index, gzip_index_uri=_beside(uri, index.gzip_index_uri))
    return dataclasses.replace(shard, format="tar.gz" if compressed else "tar"), index


def _new_index(shard: Shard, compressed: bool, uri: str, store: Store) -> ShardIndex:
    index = index_tar(shard.uri, compressed, store)
    if compressed:
        index = _with_gzip_index(index, shard, uri, store)
    now = store.stat(shard.uri)
    if now is not None and now.fingerprint == shard.fingerprint:  # otherwise this is the index of other content
        fields = dataclasses.asdict(index)
        names = {"gzip_index_uri": GZIP_INDEX_FIELD}
        renamed = {names.get(name, name): value for name, value in fields.items()}
        kept = {"version": INDEX_VERSION, "shard": shard.uri, "compressed": compressed, **renamed}
        store.publish(uri, json.dumps(kept).encode())
    return index


def _kept_index(uri: str, store: Store) -> tuple[bool, ShardIndex] | None:
    """Return (whether the tar is compressed, index), or None if no sound index is kept."""
    try:
        fields = json.loads(store.read_bytes(uri))
        index = ShardIndex(
            samples=fields["samples"],
            seek_bytes=tuple(fields["seek_bytes"]),
            duplicates=tuple(fields["duplicates"]),
            damage=fields["damage"],
            gzip_index_uri=fields[GZIP_INDEX_FIELD].rsplit("/", 1)[-1],
            ignored=fields["ignored"],
            ignored_name=fields["ignored_name"],
        )
        is_sound = _is_sound(index, fields)
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return (fields["compressed"], index) if is_sound else None


def _is_sound(index: ShardIndex, fields: dict[str, Any]) -> bool:
    numbers = (index.samples, index.ignored, *index.seek_bytes, *index.duplicates)
    strides = -(-index.samples // INDEX_STRIDE)
    return (
        all(type(number) is int and number >= 0 for number in numbers)
        and len(index.seek_bytes) in (0, strides)
        and isinstance(index.damage, str)
        and isinstance(index.ignored_name, str)
        and isinstance(fields["compressed"], bool)
        and fields["version"] == INDEX_VERSION
    )


def _beside(uri: str, name: str) -> str:
    return f"{uri.rpartition('/')[0]}/{name}"


def _with_gzip_index(index: ShardIndex, shard: Shard, uri: str, store: Store) -> ShardIndex:
    """Add random access to the index of a compressed tar, where it is possible and saves anything."""
    without = dataclasses.replace(index, seek_bytes=())
    if index.damage or index.samples <= INDEX_STRIDE or not is_available():
        return without
    try:
        gzip_index = build_gzip_index(shard.uri, shard.size_bytes, store)
    except Exception as error:
        if not is_damage(error):
            raise
        return without
    name = gzip_index_name(gzip_index, uri.rsplit("/", 1)[-1].removesuffix(".json"))
    store.publish(_beside(uri, name), gzip_index)
    return dataclasses.replace(index, gzip_index_uri=name)
