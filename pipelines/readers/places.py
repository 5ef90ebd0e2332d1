"""The places that an input names, and the files there.

The outputs of earlier runs below an input are not part of it: their previews are no photographs, and their rows hold
the images of the input a second time. They are recognized from the listing alone, by `_chunks/` or by file names.
"""

import os
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import unquote

from pipelines.errors import SettingError
from pipelines.readers.left_out import BESIDE_OUTPUT, IS_HIDDEN, OUTPUT, LeftOut, unwanted
from pipelines.readers.patterns import MAGIC, WILDCARD, escaped, expand_braces, literal_head
from pipelines.samples import is_stem
from pipelines.storage import uris
from pipelines.storage.file_info import FileInfo
from pipelines.storage.store import FILES, Store, map_concurrently
from pipelines.storage.uris import Places, protocol

LISTING_THREADS = 16
RECORDS = re.compile(r"/_chunks/(?:(?:done|removed|index|runs|plans)/|(?:configuration|chunk-size)[^/]*\.json$)")
"""Records below the root of an output, of this version or an earlier one."""
WINDOWS = re.compile(r"(?:^|/)[A-Za-z]:\\")
HIDDEN = re.compile(r"/[._]")
BESIDE_DATA = re.compile(r"/(?:README|preview|report)[^/]*|/errors/.*", re.DOTALL)
"""The files of an output besides its data/ and its records."""


class Place(NamedTuple):
    """A file or a folder that an input names, with the files there that can be used."""

    uri: str
    root: str
    """The folder that its loose files belong to."""
    files: list[FileInfo]
    output: str = ""
    """The output of an earlier run that the place is or belongs to; empty if there is none."""
    is_file: bool = False


def named_places(
    text: str, option: str, is_wanted: Callable[[str], bool], store: Store = FILES, left_out: LeftOut | None = None
) -> list[Place]:
    """Return the places that one input names, with their files.

    A path that exists as it is written is not a pattern, nor is the part of a path that exists. If a pattern matches
    outputs of earlier runs and other things, the outputs are left out; if it matches only outputs, it means them.

    Raises:
        SettingError: nothing exists at one of the places.
    """
    left_out = LeftOut() if left_out is None else left_out
    uri = uris.normalize(text)
    if not MAGIC.search(uri) or store.exists(uri):
        return [_place(uri, _file_at(uri, text, option, store), is_wanted, store, left_out)]
    head, tail = literal_head(uri, store)
    names = [head + each for each in expand_braces(tail)]

    def locate(name: str) -> list[tuple[str, FileInfo | None]]:
        if not WILDCARD.search(name[len(head) :]):
            return [(name, _file_at(name, text, option, store))]
        pattern = escaped(head) + name[len(head) :]
        left_out.add_dead_links(pattern, is_pattern=True)
        return store.glob_files(pattern)

    found = map_concurrently(store, locate, names, LISTING_THREADS)
    located = _without_covered([place for places in found for place in places])
    places = [_place(*place, is_wanted, store, left_out) for place in located]
    if not WILDCARD.search(tail):
        return places
    base = head + tail[: WILDCARD.search(tail).start()].rpartition("/")[0]  # type: ignore[union-attr]
    return _without_outputs(_with_outputs(places, base, store), left_out)


def outputs_beside_files(places: Iterable[Place], left_out: LeftOut) -> set[str]:
    """Return the outputs among places that are named one by one beside loose files, as when a shell expands `*`."""
    places = list(places)
    folders = {place.root for place in places if place.is_file and not place.output}
    outputs = {place.output for place in places if place.output == place.uri}
    beside = {uri for uri in outputs if uri.rpartition("/")[0] in folders}
    for uri in sorted(beside):
        left_out.add(OUTPUT, uri)
    return beside


def check_apart(text: str, option: str, output: str | None, places: Places) -> None:
    """Raise SettingError for an input that is the output or lies in it: the job would read what it writes."""
    if output is None:
        return
    uri, folder = places.folder(uris.normalize(text)), places.folder(output)
    if uri == folder:
        raise SettingError(
            f"{option} {text!r} is --output itself, which holds nothing to read except what its own jobs "
            f"write. Give another --output, such as {uris.join(output, 'out')}: it may lie below the input."
        )
    if uri.startswith(f"{folder.rstrip('/')}/"):
        raise SettingError(
            f"{option} {text!r} lies inside --output {output}, which holds nothing to read except what its own "
            "jobs write. Give another --output."
        )


def _without_covered(located: list[tuple[str, FileInfo | None]]) -> list[tuple[str, FileInfo | None]]:
    """Drop places below folders that match too, as with `**`, except hidden files, which only the pattern names."""
    folders = {uri for uri, file in located if file is None}
    kept = []
    for uri, file in located:
        folder = _root_of(uri, folders)
        if not folder or folder == uri or (file is not None and HIDDEN.search(uri[len(folder) :])):
            kept.append((uri, file))
    return kept


def _file_at(uri: str, text: str, option: str, store: Store) -> FileInfo | None:
    """Return the file at a URI, or None for a folder. Raises SettingError if nothing is there."""
    file = store.stat(uri)
    if file is None and not store.exists(uri):
        what = " holds no prompts" if option == "--prompts" else ""
        raise SettingError(
            f"{option} {text!r}{what}: there is nothing at {uri}. {_cure(uri, store)}Check the spelling; a relative "
            "path starts at the folder the command runs in, and a cluster's workers must be able to open it too."
        )
    return file


def _cure(uri: str, store: Store) -> str:
    """Return a guess at what was meant by a place where nothing exists."""
    if protocol(uri) != "file":
        return ""
    if os.path.islink(uri):
        return "It is a broken link. "
    if WINDOWS.search(uri):
        return "Windows paths do not work here; under WSL, C:\\x is /mnt/c/x. "
    if (plain := unquote(uri)) != uri and store.exists(plain):
        return f"Did you mean {plain}? Write it without % signs. "
    if (plain := "/".join(part.strip() for part in uri.split("/"))) != uri and store.exists(plain):
        return f"Did you mean {plain}, without the spaces at the ends? "
    return ""


def _place(uri: str, file: FileInfo | None, is_wanted: Callable[[str], bool], store: Store, left_out: LeftOut) -> Place:
    if file is None:
        return _folder(uri, is_wanted, store, left_out)
    return Place(uri, uri.rsplit("/", 1)[0], [file], is_file=True)


def _folder(uri: str, is_wanted: Callable[[str], bool], store: Store, left_out: LeftOut) -> Place:
    """Find the usable files below a folder, without the outputs in it; of an output only those in its data/."""
    wanted: list[FileInfo] = []
    others = _Others()
    outputs: set[str] = set()
    """The root of each output, relative to the folder; empty for the folder itself."""
    left_out.add_dead_links(uri)
    for found in store.iter_files(uri):
        below = found.uri[len(uri) :]
        if match := RECORDS.search(below):
            outputs.add(below[: match.start()])
        elif HIDDEN.search(below):
            others.add(below, IS_HIDDEN)
        elif is_wanted(found.uri):
            wanted.append(found)
            if (root := _root_by_name(below)) is not None:
                outputs.add(root)
        else:
            others.add(below, unwanted(below))
    nested = {output for output in outputs if output and not _is_within(output, outputs)}
    others.report(left_out, nested, uri, is_output="" in outputs)
    for output in sorted(nested):
        left_out.add(OUTPUT, f"{uri}{output}")
    kept = [file for file in wanted if not nested or not _is_within(file.uri[len(uri) :], nested)]
    kept.sort(key=lambda file: file.uri)
    if "" not in outputs:
        return Place(uri, uri, kept)
    for file in kept:
        below = file.uri[len(uri) :]
        if not below.startswith("/data/") and not BESIDE_DATA.fullmatch(below):
            left_out.add(BESIDE_OUTPUT, below)
    root = uris.join(uri, "data")
    return Place(uri, root, [file for file in kept if file.uri.startswith(f"{root}/")], output=uri)


class _Others:
    """Unusable files, counted by folder, because only at the end it is known which folders belong to outputs."""

    def __init__(self) -> None:
        self._by_folder: dict[tuple[str, str], tuple[int, str]] = {}

    def add(self, below: str, reason: str) -> None:
        key = below.rpartition("/")[0], reason
        count, example = self._by_folder.get(key, (0, below))
        self._by_folder[key] = count + 1, example

    def report(self, left_out: LeftOut, outputs: set[str], place: str, is_output: bool) -> None:
        for (folder, reason), (count, example) in self._by_folder.items():
            is_ours = is_output and (folder in ("", "/errors", "/data") or folder.startswith("/_chunks"))
            is_in_output = _is_within(f"{folder}/", outputs) or _is_own(place, folder, left_out)
            if not (is_ours or is_in_output or folder.endswith("/_scenes")):
                left_out.add(reason, example, count)


def _is_own(place: str, folder: str, left_out: LeftOut) -> bool:
    """Return whether a folder below a place is the command's own output, or lies in it."""
    parts = folder.split("/")
    return any(left_out.is_own(place + "/".join(parts[:count])) for count in range(2, len(parts) + 1))


def _root_by_name(below: str) -> str | None:
    """Return the root of the output that a file belongs to by its name, or None."""
    root, slash, rest = below.rpartition("/data/") if "/data/" in below else below.rpartition("/errors/")
    stem = rest.rpartition(".")[0]
    return root if slash and is_stem(stem) else None


def _is_within(below: str, roots: set[str]) -> bool:
    """Return whether one of the folders above is in `roots`."""
    at = below.find("/", 1)
    while at > 0:
        if below[:at] in roots:
            return True
        at = below.find("/", at + 1)
    return False


def _with_outputs(places: list[Place], base: str, store: Store) -> list[Place]:
    """Return the places that a pattern matches, with the outputs below `base` that they are or lie in."""
    is_root: dict[str, bool] = {}
    roots: set[str] = set()
    for place in places:
        below = place.uri[len(base) :]
        if not place.is_file:
            roots |= {place.output} - {""}
        elif match := RECORDS.search(below):
            roots.add(base + below[: match.start()])
        elif (root := _root_by_name(below)) is not None:
            roots.add(base + root)
        elif below.rpartition("/")[2].startswith("preview"):  # recognized by the records beside it
            folder = place.uri.rpartition("/")[0]
            if folder not in is_root:
                is_root[folder] = store.exists(uris.join(folder, "_chunks"))
            roots |= {folder} if is_root[folder] else set()
    roots.discard(base)
    return [place._replace(output=_root_of(place.uri, roots)) for place in places] if roots else places


def _root_of(uri: str, roots: set[str]) -> str:
    """Return the outermost of the roots that a place is or lies below; empty if there is none."""
    at = uri.find("/", 1)
    while at > 0:
        if uri[:at] in roots:
            return uri[:at]
        at = uri.find("/", at + 1)
    return uri if uri in roots else ""


def _without_outputs(places: list[Place], left_out: LeftOut) -> list[Place]:
    """Drop the outputs if there is anything else; if there are only outputs, drop their errors and previews."""
    if any(not place.output and place.files for place in places):
        for output in dict.fromkeys(place.output for place in places if place.output):
            left_out.add(OUTPUT, output)
        return [place for place in places if not place.output]
    return [place for place in places if not (place.is_file and place.output and _is_beside_data(place))]


def _is_beside_data(place: Place) -> bool:
    below = place.uri.removeprefix(place.output)
    return BESIDE_DATA.fullmatch(below) is not None or RECORDS.search(below) is not None
