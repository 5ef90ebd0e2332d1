"""The mark of a version of a chunk: written last, by exclusive creation, so that its writer or a remover wins.

A run that removes files which have no mark may be slower than the run that is about to mark them. So it first creates
the mark itself, as a tombstone that says the version is removed. If the writer was faster, the mark is there and the
files stay; if not, the writer finds the tombstone and publishes the same rows under another name
(`pipelines.chunk_names.version_stem`). Tombstones stay for good: a name that was removed once is never used again, so
that however late a deletion comes, it deletes nothing that counts.

A listing cannot tell a tombstone from a mark. So an empty file in `_chunks/removed/` is created before each tombstone,
and a listing, which looks there after it has looked for marks, reads the marks that are named there.
"""

from pipelines.storage.store import Store

TOMBSTONE = b'{"removed": true}'
DONE, REMOVED = "/_chunks/done/", "/_chunks/removed/"


def write_mark(store: Store, mark_uri: str, content: bytes) -> bool:
    """Mark a version as finished; False where another run has removed it instead."""
    store.create_once(mark_uri, content)
    found = _read(store, mark_uri)
    if found not in (content, TOMBSTONE, None):  # damaged, by a crash of its machine, say
        store.publish(mark_uri, content)
    return found != TOMBSTONE


def remove_unmarked(store: Store, mark_uri: str) -> bool:
    """Take away a version's right to be marked, after which its files can be deleted; False where it is marked."""
    if store.exists(mark_uri):
        return is_removed(store, mark_uri)
    store.create_once(mark_uri.replace(DONE, REMOVED), b"")
    store.create_once(mark_uri, TOMBSTONE)
    return is_removed(store, mark_uri)


def is_marked(store: Store, mark_uri: str) -> bool:
    """Whether a version has its mark."""
    return _read(store, mark_uri) not in (None, TOMBSTONE)


def is_removed(store: Store, mark_uri: str) -> bool:
    """Whether a mark is a tombstone."""
    return _read(store, mark_uri) == TOMBSTONE


def _read(store: Store, uri: str) -> bytes | None:
    try:
        return store.read_bytes(uri)
    except FileNotFoundError:
        return None
