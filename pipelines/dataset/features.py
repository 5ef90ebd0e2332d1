"""The types of columns for the `datasets` library: in code that loads rows, and in the card that the hub reads."""

from collections.abc import Iterator, Mapping

Features = Mapping[str, "str | Mapping[str, str]"]
"""Column -> `image`, the library's name for its type, or the names of the types of an object's fields."""


def load_options(features: Features) -> str:
    """Return the code of one more argument of `datasets.load_dataset`, or nothing if the files are self-describing."""
    return f", features=datasets.Features({_code(features)})" if features else ""


def front_matter(features: Features) -> str:
    """Return lines of the YAML at the beginning of a card, or nothing if the files are self-describing."""
    if not features:
        return ""
    lines = ["dataset_info:", "- config_name: default", "  features:"]
    for name, kind in features.items():
        if isinstance(kind, str):
            lines += [f"  - name: {name}", f"    dtype: {kind}"]
        else:
            fields = (line for field, of in kind.items() for line in (f"    - name: {field}", f"      dtype: {of}"))
            lines += [f"  - name: {name}", "    struct:", *fields]
    return "".join(f"{line}\n" for line in lines)


def _code(features: Features) -> str:
    """The code of a dictionary of features, grouped by type."""
    by_kind: dict[str, list[str]] = {}
    for name, kind in features.items():
        if isinstance(kind, str):
            by_kind.setdefault(kind, []).append(name)
    return f"{{{', '.join([*_alike(by_kind), *_objects(features)])}}}"


def _alike(by_kind: Mapping[str, list[str]]) -> Iterator[str]:
    for kind, names in by_kind.items():
        quoted = ", ".join(f'"{name}"' for name in names)
        value = "datasets.Image()" if kind == "image" else f'datasets.Value("{kind}")'
        yield f"**dict.fromkeys([{quoted}], {value})"


def _objects(features: Features) -> Iterator[str]:
    for name, kind in features.items():
        if not isinstance(kind, str):
            yield f'"{name}": {_code(kind)}'
