"""The mark of a version of a chunk: written last, by exclusive creation, so that either its writer or a remover wins.

A run that removes files without a mark may do so while another run is about to mark them. Therefore it first creates
the mark itself, as a tombstone that says that the version is removed. If the writer was faster, the mark exists and the
files stay; otherwise the writer finds the tombstone and publishes the same rows under another name
(`pipelines.samples.version_stem`). Tombstones are permanent: a name that was removed once is never used again, so
that a deletion, however late, deletes nothing that counts.

A listing cannot tell a tombstone from a mark. Therefore an empty file in `_chunks/removed/` is created before each
tombstone, and a listing, which looks there after it has looked for marks, reads the marks that are named there.
"""

from pipelines.storage.store import Store

TOMBSTONE = b'{"removed": true}'
DONE, REMOVED = "/_chunks/done/", "/_chunks/removed/"


def write_mark(store: Store, mark_uri: str, content: bytes) -> bool:
    """Mark a version as finished; returns False if another run has removed it instead."""
    store.create_once(mark_uri, content)
    found = _read(store, mark_uri)
    if found not in (content, TOMBSTONE, None):  # damaged, for example by a crash of its machine
        store.publish(mark_uri, content)
    return found != TOMBSTONE


def remove_unmarked(store: Store, mark_uri: str) -> bool:
    """Prevent a version from being marked, so that its files can be deleted; returns False if it is marked already."""
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
