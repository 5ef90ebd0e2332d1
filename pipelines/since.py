"""`--since WHEN`: only the shards that were written at or after a moment."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pipelines.errors import SettingError
from pipelines.inputs import Shard

UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def parse_since(text: str, now: datetime) -> datetime:
    """`36h`, `7d` (before `now`), an ISO date or an ISO time, UTC unless it names its zone.

    Raises:
        ValueError: another spelling, or a moment after `now`.
    """
    span = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip().lower())
    try:
        moment = now - int(span[1]) * UNITS[span[2]] if span else datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is no moment; write a date (2026-11-24), a time (2026-11-24T18:00, UTC; or with +01:00), or how "
            "long ago: 90m, 36h, 7d, 2w"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > now:
        raise ValueError(f"{text!r} is in the future; it is {now:%Y-%m-%dT%H:%M} UTC now")
    return moment.astimezone(UTC)


def modified_since(shards: Sequence[Shard], moment: datetime) -> list[Shard]:
    """The shards whose file was written at or after `moment`, of loose pictures any file of the folder.

    Raises:
        SettingError: the storage does not tell when a shard was written.
    """
    unknown = next((shard.uri for shard in shards if shard.modified_s is None), None)
    if unknown is not None:
        raise SettingError(
            f"--since needs a storage that tells when its files were written; for {unknown} it does not. Leave the "
            "option out: what is finished is not done again anyway."
        )
    start_s = moment.timestamp()
    return [shard for shard in shards if shard.modified_s is not None and shard.modified_s >= start_s]
