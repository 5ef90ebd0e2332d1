"""The index of a tar, made once and kept in the output for the next run."""

import dataclasses
import json

from pipelines.damage import is_damage
from pipelines.readers.gzip_index import can_enter, find_points, points_name
from pipelines.readers.shard_index import INDEX_STRIDE, TarIndex, index_uri
from pipelines.readers.shards import Shard
from pipelines.readers.tar import index_tar, is_compressed
from pipelines.storage.store import Store

INDEX_VERSION = 2
"""Of kept indexes. Earlier ones ended at the first end mark of a tar; they are made again."""


def _tar_index(shard: Shard, output: str, store: Store) -> tuple[Shard, TarIndex]:
    """The tar, with the format that its content has whatever it is called, and its kept index.

    A new index is kept for the next run.
    """
    uri = index_uri(output, shard.uri, shard.fingerprint)
    kept = _kept_index(uri, store)
    if kept is None:
        compressed = is_compressed(shard.uri, store)
        kept = compressed, _new_index(shard, compressed, uri, store)
    compressed, index = kept
    if index.gzip_points:
        index = dataclasses.replace(index, gzip_points=_beside(uri, index.gzip_points))
    return dataclasses.replace(shard, format="tar.gz" if compressed else "tar"), index


def _new_index(shard: Shard, compressed: bool, uri: str, store: Store) -> TarIndex:
    index = index_tar(shard.uri, compressed, store)
    if compressed:
        index = _with_points(index, shard, uri, store)
    now = store.stat(shard.uri)
    if now is not None and now.fingerprint == shard.fingerprint:  # else this is the index of another content
        fields = {"version": INDEX_VERSION, "shard": shard.uri, "compressed": compressed, **dataclasses.asdict(index)}
        store.publish(uri, json.dumps(fields).encode())
    return index


def _kept_index(uri: str, store: Store) -> tuple[bool, TarIndex] | None:
    """(is compressed, index); None where none is kept, or one that is damaged."""
    try:
        fields = json.loads(store.read_bytes(uri))
        index = TarIndex(
            samples=fields["samples"],
            seek_bytes=tuple(fields["seek_bytes"]),
            duplicates=tuple(fields["duplicates"]),
            damage=fields["damage"],
            gzip_points=fields["gzip_points"].rsplit("/", 1)[-1],
            ignored=fields["ignored"],
            ignored_name=fields["ignored_name"],
        )
        numbers = (index.samples, index.ignored, *index.seek_bytes, *index.duplicates)
        strides = -(-index.samples // INDEX_STRIDE)
        is_sound = (
            all(type(number) is int and number >= 0 for number in numbers)
            and len(index.seek_bytes) in (0, strides)
            and isinstance(index.damage, str)
            and isinstance(index.ignored_name, str)
            and isinstance(fields["compressed"], bool)
            and fields["version"] == INDEX_VERSION
        )
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return (fields["compressed"], index) if is_sound else None


def _beside(uri: str, name: str) -> str:
    return f"{uri.rpartition('/')[0]}/{name}"


def _with_points(index: TarIndex, shard: Shard, uri: str, store: Store) -> TarIndex:
    """The index of a compressed tar that can be entered, where that is possible and saves anything.

    The points lie beside the index, which knows their name alone: an output may be moved.
    """
    without = dataclasses.replace(index, seek_bytes=())
    if index.damage or index.samples <= INDEX_STRIDE or not can_enter():
        return without
    try:
        points = find_points(shard.uri, shard.size_bytes, store)
    except Exception as error:
        if not is_damage(error):
            raise
        return without
    name = points_name(points, uri.rsplit("/", 1)[-1].removesuffix(".json"))
    store.publish(_beside(uri, name), points)
    return dataclasses.replace(index, gzip_points=name)
