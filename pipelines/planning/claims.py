"""Decisions that the first run makes for an output: the chunk size and the configuration.

The name of a chunk contains its range and its configuration, so two runs that disagree would publish the same samples
under two names. A claim is a file that is created exclusively, by `os.link` locally and by a conditional PUT on object
stores. All runs read it back, and therefore agree.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from pipelines import storage
from pipelines.errors import SettingError
from pipelines.storage.store import Store, honors_create_once

CHUNK_SIZE, CONFIGURATION = "chunk-size", "configuration"
MAX_DAMAGED = 5
"""Maximum number of damaged records of one claim that are skipped."""

Say = Callable[[str], None]


def configuration_hash(settings: Mapping[str, object]) -> str:
    """Return a hash of everything that affects the content of a row."""
    return storage.short_hash(json.dumps(dict(settings), sort_keys=True))


def agree_on_chunk_size(store: Store, output: str, wanted: int, say: Say) -> int:
    """Return the chunk size of an output, which is `wanted` if none is recorded; reports a different recorded size."""
    uri, record = _claim(store, output, CHUNK_SIZE, {"chunk_size": wanted}, _is_chunk_size)
    recorded = int(record["chunk_size"])
    if recorded != wanted:
        say(
            f"This output began with chunks of {recorded} samples, so --chunk-size {wanted} is not used. An output has "
            f"one chunk size, so that simultaneous runs never write a row twice. To change it, delete {uri} while no "
            "run works on this output."
        )
    return recorded


def claim_configuration(store: Store, output: str, settings: Mapping[str, object]) -> None:
    """Record these settings for the output, or check that they are the recorded ones.

    Raises:
        SettingError: The output has other settings; the message names those that differ.
    """
    configuration = configuration_hash(settings)
    wanted = {"configuration": configuration, "settings": dict(settings)}
    uri, record = _claim(store, output, CONFIGURATION, wanted, _is_configuration)
    if record["configuration"] != configuration:
        raise _other_settings(
            output,
            record.get("settings", {}),
            settings,
            f" If the output is empty and no run works on it, delete {uri}.",
        )


def settings_as_begun(
    store: Store,
    output: str,
    found: set[str],
    settings: Mapping[str, object],
    continues: Callable[[Mapping[str, Any]], bool],
) -> Mapping[str, object]:
    """Return the settings with which to continue an output: `settings`, or their equivalent from an earlier version.

    Args:
        store: The storage of the output.
        output: The output root.
        found: The configuration hashes in the names of the output's files.
        settings: The settings of this run.
        continues: Returns whether recorded settings are equivalent to these, although they contain fewer entries.
    """
    ours = configuration_hash(settings)
    if len(found) > 1 or any(ours.startswith(other) for other in found):
        return settings
    recorded = _spelled_out(store, output, next(iter(found), None))
    return recorded if recorded and continues(recorded) else settings


def check_configurations(store: Store, output: str, found: set[str], settings: Mapping[str, object]) -> None:
    """Check that all rows of an output were made with these settings.

    Args:
        store: The storage of the output.
        output: The output root.
        found: The configuration hashes in the names of the output's files.
        settings: The settings of this run.

    Raises:
        SettingError: One of the hashes is not that of `settings`.
    """
    configuration = configuration_hash(settings)
    others = sorted(other for other in found if not configuration.startswith(other))
    if others:
        raise _other_settings(output, _spelled_out(store, output, others[0]), settings)


def warn_without_exclusive_creation(store: Store, output: str, run: str, say: Say) -> None:
    """Warn if the storage has no exclusive creation, because simultaneous runs cannot agree there.

    Args:
        store: The storage of the output.
        output: The output root.
        run: A name that no other run has, for the file that is created as a test.
        say: Called with the warning.
    """
    if not honors_create_once(store, storage.join(output, "_chunks", f"probe-{run}")):
        say(
            f"warning: the storage of {output} ignores conditional writes (If-None-Match), so two runs that start at "
            "the same time cannot agree on chunk size and settings. Run one command at a time on this output."
        )


def _spelled_out(store: Store, output: str, configuration: str | None) -> Mapping[str, object]:
    """Return the settings that have a hash, if the output contains them: in its claim, or as version 0.1 wrote them.

    Args:
        store: The storage of the output.
        output: The output root.
        configuration: The hash; None stands for the hash of the claim.
    """
    names = [f"{CONFIGURATION}.json"] + ([f"{CONFIGURATION}-{configuration}.json"] if configuration else [])
    while names:
        name = names.pop(0)
        try:
            record = json.loads(store.read_bytes(storage.join(output, "_chunks", name)))
        except FileNotFoundError:
            continue
        except ValueError:  # damaged; the claim is in the next file
            if name == f"{CONFIGURATION}.json":
                names += [f"{CONFIGURATION}.{number}.json" for number in range(2, MAX_DAMAGED + 2)]
            continue
        if not _is_configuration(record):
            return record if isinstance(record, dict) else {}
        if configuration in (None, record["configuration"]):
            return record.get("settings", {})
    return {}


def _other_settings(
    output: str, before: Mapping[str, object], now: Mapping[str, object], cure: str = ""
) -> SettingError:
    before, now = _flat(before), _flat(now)
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    changes = ", ".join(f"{name} was {_shown(before, name)} and is now {_shown(now, name)}" for name in names)
    return SettingError(
        f"--output {output} already has rows made with other settings, or a run is making them: "
        f"{changes or 'unknown ones'}. An output has one configuration. Use the old settings to continue it, or "
        f"another --output.{cure}"
    )


def _flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Flatten nested settings to names like model_config.scheduler.beta_end, so a message can name a single one."""
    flat: dict[str, object] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _shown(settings: Mapping[str, object], name: str) -> str:
    return repr(settings[name]) if name in settings else "not given"


def _claim(
    store: Store, output: str, name: str, wanted: Mapping[str, Any], is_record: Callable[[Any], bool]
) -> tuple[str, Mapping[str, Any]]:
    """Return (URI, record) of a claim. A damaged record, for example after a machine crash, is skipped permanently."""
    uri = ""
    for number in range(1, MAX_DAMAGED + 2):
        uri = storage.join(output, "_chunks", f"{name}.json" if number == 1 else f"{name}.{number}.json")
        if not store.exists(uri):
            store.create_once(uri, json.dumps(dict(wanted), indent=1, sort_keys=True).encode())
        try:
            record = json.loads(store.read_bytes(uri))
        except ValueError:
            continue
        if is_record(record):
            return uri, record
    raise SettingError(f"{uri} and the records before it are damaged. Delete them while no run works on {output}.")


def _is_chunk_size(record: Any) -> bool:
    size = record.get("chunk_size") if isinstance(record, dict) else None
    return isinstance(size, int) and size > 0


def _is_configuration(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("configuration"), str)
