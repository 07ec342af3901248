"""Who reads the log follows the engines: a group that nobody runs would hold it for ever."""

from typing import Any

import pytest

from lakehouse.settings import load_settings
from streaming.spine.topics import ARCHIVE, BRIDGE, CANDLES, FEED, HOT, REPLAY, TOPICS, readers
from streaming.workers import roster

EVERYWHERE = {
    "gaps": (ARCHIVE, FEED),
    "quarantine": (ARCHIVE, FEED),
    "intake": (ARCHIVE, FEED),
    "replay": (REPLAY,),
    "sessions": (FEED,),
}

WANTED: list[tuple[dict[str, Any], dict[str, tuple[str, ...]]]] = [
    (
        {},
        {"trades": (HOT, ARCHIVE, CANDLES, FEED), "quotes": (HOT, ARCHIVE), "book": (ARCHIVE,)},
    ),
    (
        {"hot_store": "fluss"},
        {"trades": (BRIDGE, ARCHIVE, CANDLES, FEED), "quotes": (BRIDGE, ARCHIVE), "book": (BRIDGE, ARCHIVE)},
    ),
    (
        {"profile": "cluster"},
        {"trades": (BRIDGE, FEED), "quotes": (BRIDGE,), "book": (BRIDGE,)},
    ),
]


@pytest.mark.parametrize(("chosen", "market"), WANTED)
def test_the_readers_of_each_topic(chosen: dict[str, Any], market: dict[str, tuple[str, ...]]) -> None:
    settings = load_settings(**chosen)
    found = readers(settings)
    assert dict(found) == market | EVERYWHERE
    assert tuple(found) == TOPICS
    groups = {group for groups in found.values() for group in groups} - {FEED, REPLAY}
    assert groups == set(roster.readers(settings))
