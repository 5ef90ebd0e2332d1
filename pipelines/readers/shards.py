"""Finding shards: URIs, globs, braces and folders of `--input` become tars, Parquet files, JSON lines or folders."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from pipelines import storage
from pipelines.errors import SettingError
from pipelines.images.containers import IMAGE_EXTENSIONS, is_image_name
from pipelines.readers.folder import is_sidecar
from pipelines.readers.formats import format_called, format_name, without_ending
from pipelines.readers.left_out import LeftOut, unwanted
from pipelines.readers.places import Place, check_apart, named_places, outputs_beside_files
from pipelines.readers.shard_index import FOLDER_FORMAT, Shard
from pipelines.storage.errors import is_refusal
from pipelines.storage.store import FILES, Store
from pipelines.storage.uris import Places, check_given, former_spelling

BESIDE_TAR, BESIDE_DATA, NO_IMAGE = (
    "Parquet files beside a tar of the same name",
    "JSON lines beside other data",
    "texts without an image",
)
"""Why files with a known extension are left out."""
Tell = Callable[[str], None]
_Found = tuple[str, storage.FileInfo]
"""(folder that the file belongs to if it is loose, file), spelled as the input spells them"""


def find_shards(
    inputs: Iterable[str], exclude: str | None = None, store: Store = FILES, tell: Tell | None = None
) -> list[Shard]:
    """Find all shards of the inputs in the order given, each once.

    In folders, names that begin with a dot or an underscore are left out. So are lists of contents: a Parquet file with
    the name of the tar beside it, and JSON lines if their input has anything else. The output of an earlier run stands
    for the rows in its data/; outputs below an input are left out. If one input lies within another, the loose images
    of both belong to the outer one.

    Args:
        inputs: Paths, URIs and patterns.
        exclude: The output; what lies below it is left out.
        store: Where the inputs are.
        tell: Receives one line that counts what is left out, if anything is.

    Raises:
        SettingError: an input is empty, does not exist, cannot be read, is the output, matches nothing, or has no
            files of a known format.
    """
    places = Places()
    output = None if exclude is None else storage.normalize(exclude)
    left_out = LeftOut(
        is_own=lambda uri: output is not None and places.folder(uri) == places.folder(output),
        looks_for_links=tell is not None,
    )
    shards: dict[str, Shard] = {}
    loose: list[_Loose] = []
    for text, root, file in _found(list(inputs), output, places, store, left_out):
        if format_name(file.uri) is None:
            loose.append(_loose(root, file, places, text))
            continue
        shard = shard_of(file, format_name, places, text)
        if not places.is_below(shard.uri, output):
            shards.setdefault(shard.uri, shard)
    folders = list(_folders(loose, left_out))
    if tell is not None and (line := left_out.text()):
        tell(line)
    return [*shards.values(), *folders]


def shard_of(file: storage.FileInfo, format_by_name: Callable[[str], str | None], places: Places, text: str) -> Shard:
    """Return the shard for one file that was found by the input `text`."""
    uri = places.shard(file.uri, lambda name: format_by_name(name) is not None)
    former = former_spelling(file.uri, text)
    return Shard(
        uri=uri,
        format=format_by_name(uri) or "",
        size_bytes=file.size_bytes,
        fingerprint=file.fingerprint,
        modified_s=file.modified_s,
        former_uri="" if former == uri else former,
    )


@contextmanager
def reading(option: str, text: str) -> Iterator[None]:
    """Turn errors about a place that cannot be read into SettingErrors, but not temporary failures of a storage."""
    try:
        yield
    except SettingError:
        raise
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not (is_refusal(error) or isinstance(error, FileNotFoundError)):
            raise  # running the same command again continues
        raise SettingError(f"{option} {text!r} cannot be read: {error}") from error


def _found(
    inputs: list[str], output: str | None, places: Places, store: Store, left_out: LeftOut
) -> Iterator[tuple[str, str, storage.FileInfo]]:
    """Yield (input, folder that the file belongs to if it is loose, file) for everything that the inputs name."""
    named: list[tuple[str, list[Place]]] = []
    for text in inputs:
        check_given("--input", text)
        check_apart(text, "--input", output, places)
        with reading("--input", text):
            named.append((text, named_places(text, "--input", _is_of_use, store, left_out)))
    beside = outputs_beside_files([place for _, here in named for place in here], left_out)
    for text, places_of in named:
        here = [place for place in places_of if place.uri not in beside]
        found = [(place.root, file) for place in here for file in place.files if not places.is_below(file.uri, output)]
        found = _without_lists(found, left_out)
        if (here or not places_of) and not any(_is_data(file.uri) for _, file in found):
            raise SettingError(
                f"--input {text!r} holds nothing to read. Rule: tars (.tar, .tar.gz, .tgz), Parquet files (.parquet), "
                f"JSON lines (.jsonl) or images ({', '.join(IMAGE_EXTENSIONS[:6])}, ...). Check the path, or the "
                f"extension of the files.{_also(left_out)}"
            )
        yield from ((text, root, file) for root, file in found)


def _also(left_out: LeftOut) -> str:
    text = left_out.text()
    return f" {text[0].upper()}{text[1:]}." if text else ""


def _is_data(uri: str) -> bool:
    return format_name(uri) is not None or is_image_name(uri)


def _is_of_use(uri: str) -> bool:
    return _is_data(uri) or is_sidecar(uri)


def _without_lists(found: list[_Found], left_out: LeftOut) -> list[_Found]:
    """Drop lists of contents, and files that only a pattern could match."""
    formats = {file.uri: name for _, file in found if (name := format_name(file.uri)) is not None}
    by_stem: dict[str, set[str]] = {}
    for uri, name in formats.items():
        by_stem.setdefault(without_ending(uri), set()).add(name)
    has_others = any(is_image_name(file.uri) for _, file in found) or any(
        not format_called(name).yields_to_others for name in formats.values()
    )
    kept = []
    for folder, file in found:
        below = file.uri.removeprefix(folder)
        form = format_called(formats[file.uri]) if file.uri in formats else None
        if form is not None and not by_stem[without_ending(file.uri)].isdisjoint(form.describes):
            left_out.add(BESIDE_TAR, below)
        elif form is not None and form.yields_to_others and has_others:
            left_out.add(BESIDE_DATA, below)
        elif form is None and not _is_of_use(file.uri):
            left_out.add(unwanted(below), below)
        else:
            kept.append((folder, file))
    return kept


class _Loose(NamedTuple):
    """An image, or a file beside one."""

    root: str
    """The folder that the input names, with links resolved."""
    former_root: str
    file: storage.FileInfo
    """Spelled below `root`."""
    place: str
    """The same path whichever way leads to the file."""


def _loose(root: str, file: storage.FileInfo, places: Places, text: str) -> _Loose:
    own_root = places.folder(root)
    if own_root != root:
        file = replace(file, uri=f"{own_root}{file.uri[len(root) :]}")
    return _Loose(own_root, former_spelling(root, text), file, places.file(file.uri))


def _folders(loose: list[_Loose], left_out: LeftOut) -> Iterator[Shard]:
    """Yield the folders of loose images, each file once. Of nested folders only the outermost one is a shard."""
    former = {each.root: each.former_root for each in reversed(loose)}
    homes = {root: _outermost(root, former) for root in former}
    files: dict[str, list[storage.FileInfo]] = {homes[each.root]: [] for each in loose}
    seen: set[str] = set()
    for each in sorted(loose, key=lambda each: each.root):  # a folder comes before those within it
        if each.place not in seen:
            seen.add(each.place)
            files[homes[each.root]].append(each.file)
    for root, found in files.items():
        _tell_texts_alone(root, found, left_out)
        if any(is_image_name(file.uri) for file in found):
            yield _folder(root, former[root], found)


def _tell_texts_alone(root: str, files: Iterable[storage.FileInfo], left_out: LeftOut) -> None:
    texts = [file.uri for file in files if is_sidecar(file.uri)]
    if texts:
        found = [file.uri for file in files if is_image_name(file.uri)]
        images = {*found, *(uri.rsplit(".", 1)[0] for uri in found)}
        alone = [uri for uri in texts if uri.rsplit(".", 1)[0] not in images]
        left_out.add(NO_IMAGE, *(uri.removeprefix(root) for uri in alone[:1] or [""]), count=len(alone))


def _outermost(root: str, roots: Container[str]) -> str:
    """Return the outermost folder of `roots` that contains a folder or is that folder."""
    parts = root.split("/")
    above = ("/".join(parts[:count]) for count in range(1, len(parts)))
    return next((folder for folder in above if folder in roots), root)


def _folder(uri: str, former: str, files: list[storage.FileInfo]) -> Shard:
    ordered = tuple(sorted(files, key=lambda file: file.uri))
    listing = storage.short_hash(*(f"{file.uri} {file.fingerprint}" for file in ordered))
    times = [file.modified_s for file in ordered]
    return Shard(
        uri=uri,
        format=FOLDER_FORMAT,
        size_bytes=sum(file.size_bytes for file in ordered),
        fingerprint=listing,
        modified_s=None if None in times else max(time for time in times if time is not None),
        files=ordered,
        former_uri="" if former == uri else former,
    )


def modified_since(shards: Sequence[Shard], moment: datetime) -> list[Shard]:
    """Return the shards whose file, or any file of their folder, was written at or after `moment`.

    Raises:
        SettingError: the storage does not know when a shard was written.
    """
    unknown = next((shard.uri for shard in shards if shard.modified_s is None), None)
    if unknown is not None:
        raise SettingError(
            f"--since needs a storage that tells when its files were written; for {unknown} it does not. Leave the "
            "option out: finished work is not done again anyway."
        )
    start_s = moment.timestamp()
    return [shard for shard in shards if shard.modified_s is not None and shard.modified_s >= start_s]
