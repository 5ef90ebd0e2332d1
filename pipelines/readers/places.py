"""What an input names: the files at its places; and what of them is left out, and why.

Outputs of earlier runs below an input are no part of it: their previews are no photographs, and their rows hold the
input's images a second time. They are told by `_chunks/` or by the names of their files, from the listing alone.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote

from pipelines import chunk_names, storage
from pipelines.errors import SettingError
from pipelines.storage import FileInfo, local_files
from pipelines.storage.store import FILES, Store, map_concurrently
from pipelines.storage.uris import Places, protocol
from pipelines.texts import clipped

LISTING_THREADS = 16
MAX_NAMES = 1_000_000
"""That braces may stand for."""
MAGIC, PATTERN = re.compile(r"[*?\[{]"), re.compile(r"[*?\[]")
RECORDS = re.compile(r"/_chunks/(?:(?:done|removed|index|runs|plans)/|(?:configuration|chunk-size)[^/]*\.json$)")
"""Below an output root of this version or an earlier one."""
WINDOWS = re.compile(r"(?:^|/)[A-Za-z]:\\")
HIDDEN = re.compile(r"/[._]")
BESIDE_DATA = re.compile(r"/(?:README|preview|report)[^/]*|/errors/.*", re.DOTALL)
"""What an output of ours has besides its data/ and its records."""

DEAD_LINK, NO_EXTENSION, OTHER_EXTENSION, IS_HIDDEN = (
    "dead links",
    "no extension",
    "extension of no image or shard",
    "hidden (. or _ before the name)",
)
OUTPUT, BESIDE_OUTPUT = "outputs of earlier runs", "files beside the data/ of an output"


@dataclass
class LeftOut:
    """How many files are left out of an input, by reason, with an example each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    is_own: Callable[[str], bool] = lambda uri: False
    """Whether an output is the command's own: nobody expects it to be read."""
    looks_for_links: bool = True
    """Whether dead links are looked for, which means one more walk through the folders of a disk."""
    _outputs: set[str] = field(default_factory=set)

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Count files; the first name of a reason is its example."""
        if reason == OUTPUT:
            if name in self._outputs or self.is_own(name):
                return
            self._outputs.add(name)
        if count:
            self.counts[reason] += count
            self.examples.setdefault(reason, name if reason in (OUTPUT, DEAD_LINK) else name.lstrip("/"))

    def add_dead_links(self, place: str, is_pattern: bool = False) -> None:
        """Count the links of a local place that lead nowhere; listings pass over them."""
        if self.looks_for_links and protocol(place) == "file":
            found = local_files.dead_links(place, is_pattern)
            self.add(DEAD_LINK, found[0] if found else "", len(found))

    def text(self, option: str = "--input") -> str:
        """One line for people; empty where nothing is left out."""
        cure = {OUTPUT: f"; to read one, give it alone as {option}"}
        parts = [
            f"{reason}: {count} ({clipped(self.examples[reason])}{cure.get(reason, '')})"
            for reason, count in self.counts.items()
        ]
        return f"left out of the input: {', '.join(parts)}" if parts else ""


class Place(NamedTuple):
    """A file or a folder that an input names, with the files of use there."""

    uri: str
    root: str
    """The folder that its loose files count as part of."""
    files: list[FileInfo]
    output: str = ""
    """The output of ours that the place is, or is a file of; empty where it is none."""
    is_file: bool = False


def named_places(
    text: str, option: str, is_wanted: Callable[[str], bool], store: Store = FILES, left_out: LeftOut | None = None
) -> list[Place]:
    """The places that one input names, with their files.

    A path that exists as it is written is no pattern, nor is the part of a path that does. Of a pattern that matches
    outputs of ours and other things the outputs are left out; one that matches nothing else means them.

    Raises:
        SettingError: there is nothing at one of the places.
    """
    left_out = LeftOut() if left_out is None else left_out
    uri = storage.normalise(text)
    if not MAGIC.search(uri) or store.exists(uri):
        return [_place(uri, _file_at(uri, text, option, store), is_wanted, store, left_out)]
    head, tail = _literal_head(uri, store)
    names = [head + each for each in expand_braces(tail)]

    def locate(name: str) -> list[tuple[str, FileInfo | None]]:
        if not PATTERN.search(name[len(head) :]):
            return [(name, _file_at(name, text, option, store))]
        pattern = escaped(head) + name[len(head) :]
        left_out.add_dead_links(pattern, is_pattern=True)
        return store.glob_files(pattern)

    found = map_concurrently(store, locate, names, LISTING_THREADS)
    located = _without_covered([place for places in found for place in places])
    places = [_place(*place, is_wanted, store, left_out) for place in located]
    if not PATTERN.search(tail):
        return places
    base = head + tail[: PATTERN.search(tail).start()].rpartition("/")[0]  # type: ignore[union-attr]
    return _without_outputs(_with_outputs(places, base, store), left_out)


def outputs_beside_files(places: Iterable[Place], left_out: LeftOut) -> set[str]:
    """The outputs of ours among places that are named one by one beside loose files: the shell has expanded `*`."""
    places = list(places)
    folders = {place.root for place in places if place.is_file and not place.output}
    outputs = {place.output for place in places if place.output == place.uri}
    beside = {uri for uri in outputs if uri.rpartition("/")[0] in folders}
    for uri in sorted(beside):
        left_out.add(OUTPUT, uri)
    return beside


def expand_braces(text: str) -> list[str]:
    """`a{0..2}b` -> a0b, a1b, a2b and `{x,y}` -> x, y, as WebDataset spells shard ranges; leading zeros are kept.

    Raises:
        SettingError: these are more than MAX_NAMES names, by a slip of the finger.
    """
    match = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", text)
    if match is None:
        return [text]
    first, last, words = match.groups()
    if words is not None:
        choices = words.split(",")
    else:
        step = 1 if int(first) <= int(last) else -1
        has_zeros = any(end.startswith("0") and len(end) > 1 for end in (first, last))
        digits = max(len(first), len(last)) if has_zeros else 0
        if abs(int(last) - int(first)) >= MAX_NAMES:
            raise SettingError(f"{match[0][:60]} stands for more than {MAX_NAMES:,} names. Correct the range.")
        choices = [str(number).zfill(digits) for number in range(int(first), int(last) + step, step)]
    rests = expand_braces(text[match.end() :])
    if len(choices) * len(rests) > MAX_NAMES:
        raise SettingError(f"{text[:150]!r} stands for more than {MAX_NAMES:,} names. Correct the ranges.")
    return [text[: match.start()] + choice + rest for choice in choices for rest in rests]


def check_apart(text: str, option: str, output: str | None, places: Places) -> None:
    """Raises SettingError for an input that is the output itself, or lies in it: it would read what it writes."""
    if output is None:
        return
    uri, folder = places.folder(storage.normalise(text)), places.folder(output)
    if uri == folder:
        raise SettingError(
            f"{option} {text!r} is --output itself; an output holds nothing to read but what its jobs write. Give an "
            f"--output of its own, such as {storage.join(output, 'out')}: it may lie below the input."
        )
    if uri.startswith(f"{folder.rstrip('/')}/"):
        raise SettingError(
            f"{option} {text!r} lies inside --output {output}: it holds nothing to read but what that job writes. "
            "Give another --output."
        )


def _without_covered(located: list[tuple[str, FileInfo | None]]) -> list[tuple[str, FileInfo | None]]:
    """Without places below folders that are there too: `**` matches both. What is hidden is named by the pattern."""
    folders = {uri for uri, file in located if file is None}
    kept = []
    for uri, file in located:
        folder = _root_of(uri, folders)
        if not folder or folder == uri or (file is not None and HIDDEN.search(uri[len(folder) :])):
            kept.append((uri, file))
    return kept


def _literal_head(uri: str, store: Store) -> tuple[str, str]:
    """(the folders that exist as they are written although they look like patterns and those above them, the rest)."""
    head, at = "", uri.find("://") + 3 if protocol(uri) != "file" else 0
    while (slash := uri.find("/", at)) >= 0:
        part = uri[at:slash]
        if MAGIC.search(part):
            if not store.exists(uri[:slash]):
                break
            head = uri[:slash]
        elif head:
            head = uri[:slash]
        at = slash + 1
    return head, uri[len(head) :]


def escaped(path: str) -> str:
    """The pattern that means this path alone."""
    return PATTERN.sub(lambda match: f"[{match[0]}]", path)


def _file_at(uri: str, text: str, option: str, store: Store) -> FileInfo | None:
    """The file at a URI; None for a folder."""
    file = store.stat(uri)
    if file is None and not store.exists(uri):
        what = " holds no prompts" if option == "--prompts" else ""
        raise SettingError(
            f"{option} {text!r}{what}: there is nothing at {uri}. {_cure(uri, store)}Check the spelling; a relative "
            "path starts at the folder the command runs in, and a cluster's workers must be able to open it too."
        )
    return file


def _cure(uri: str, store: Store) -> str:
    """What may have been meant by a place where nothing is."""
    if protocol(uri) != "file":
        return ""
    if os.path.islink(uri):
        return "It is a link that leads nowhere. "
    if WINDOWS.search(uri):
        return "A path of Windows means nothing here; under WSL, C:\\x is /mnt/c/x. "
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
    """The files of use below a folder, without those of outputs within it; of an output those in its data/."""
    wanted: list[FileInfo] = []
    others = _Others()
    outputs: set[str] = set()
    """What of a URI is below the folder, up to the root of an output; empty for the folder itself."""
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
    others.tell(left_out, nested, uri, is_output="" in outputs)
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
    root = storage.join(uri, "data")
    return Place(uri, root, [file for file in kept if file.uri.startswith(f"{root}/")], output=uri)


class _Others:
    """Files that are of no use, counted by folder: which folders are those of outputs is known at the end only."""

    def __init__(self) -> None:
        self._by_folder: dict[tuple[str, str], tuple[int, str]] = {}

    def add(self, below: str, reason: str) -> None:
        key = below.rpartition("/")[0], reason
        count, example = self._by_folder.get(key, (0, below))
        self._by_folder[key] = count + 1, example

    def tell(self, left_out: LeftOut, outputs: set[str], place: str, is_output: bool) -> None:
        for (folder, reason), (count, example) in self._by_folder.items():
            is_ours = is_output and (folder in ("", "/errors", "/data") or folder.startswith("/_chunks"))
            is_in_output = _is_within(f"{folder}/", outputs) or _is_own(place, folder, left_out)
            if not (is_ours or is_in_output or folder.endswith("/_scenes")):
                left_out.add(reason, example, count)


def _is_own(place: str, folder: str, left_out: LeftOut) -> bool:
    """Whether a folder below a place is the command's own output, or lies in it."""
    parts = folder.split("/")
    return any(left_out.is_own(place + "/".join(parts[:count])) for count in range(2, len(parts) + 1))


def unwanted(name: str) -> str:
    """Why a file is of no use, by its name."""
    if name.rsplit("/", 1)[-1].startswith((".", "_")):
        return IS_HIDDEN
    return OTHER_EXTENSION if "." in name.rsplit("/", 1)[-1].strip(".") else NO_EXTENSION


def _root_by_name(below: str) -> str | None:
    """The root of the output that a file is of by its name, where `below` has it."""
    root, slash, rest = below.rpartition("/data/") if "/data/" in below else below.rpartition("/errors/")
    stem = rest.rpartition(".")[0]
    return root if slash and chunk_names.is_stem(stem) else None


def _is_within(below: str, roots: set[str]) -> bool:
    """Whether one of the folders above is one of `roots`."""
    at = below.find("/", 1)
    while at > 0:
        if below[:at] in roots:
            return True
        at = below.find("/", at + 1)
    return False


def _with_outputs(places: list[Place], base: str, store: Store) -> list[Place]:
    """The places that a pattern matches, with the outputs below `base` that they are or lie in."""
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
        elif below.rpartition("/")[2].startswith("preview"):  # which is known by the records beside it
            folder = place.uri.rpartition("/")[0]
            if folder not in is_root:
                is_root[folder] = store.exists(storage.join(folder, "_chunks"))
            roots |= {folder} if is_root[folder] else set()
    roots.discard(base)
    return [place._replace(output=_root_of(place.uri, roots)) for place in places] if roots else places


def _root_of(uri: str, roots: set[str]) -> str:
    """The outermost of the roots that a place is, or lies below; empty where there is none."""
    at = uri.find("/", 1)
    while at > 0:
        if uri[:at] in roots:
            return uri[:at]
        at = uri.find("/", at + 1)
    return uri if uri in roots else ""


def _without_outputs(places: list[Place], left_out: LeftOut) -> list[Place]:
    """Without the outputs, where there is anything else; of outputs alone not their errors and previews."""
    if any(not place.output and place.files for place in places):
        for output in dict.fromkeys(place.output for place in places if place.output):
            left_out.add(OUTPUT, output)
        return [place for place in places if not place.output]
    return [place for place in places if not (place.is_file and place.output and _is_beside_data(place))]


def _is_beside_data(place: Place) -> bool:
    below = place.uri.removeprefix(place.output)
    return BESIDE_DATA.fullmatch(below) is not None or RECORDS.search(below) is not None
