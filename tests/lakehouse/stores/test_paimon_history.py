"""A Paimon table's snapshots and tags, read while others commit, tag and expire."""

import threading
import time
from pathlib import Path

import pytest
from table_rows import make_candles

from lakehouse.home import Home
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M


def folder(store: PaimonStore, name: str) -> Path:
    return Path(store.opened(CANDLES_1M).table_path) / name


def test_what_goes_between_the_listing_and_the_reading_has_expired(home: Home) -> None:
    with PaimonStore.open(home) as store:
        for number in range(3):
            store.upsert(CANDLES_1M, make_candles([number]))
        store.tag(CANDLES_1M, "stays", 2)
        # Listed, and gone when they are opened.
        (folder(store, "snapshot") / "snapshot-1").unlink()
        (folder(store, "snapshot") / "snapshot-1").symlink_to("nowhere")
        (folder(store, "tag") / "tag-leaves").symlink_to("nowhere")
        history = store.history(CANDLES_1M)
    assert list(history.live) == [2, 3]
    assert history.tags == {"stays": 2}
    assert list(history.snapshots) == [2, 3]


def test_a_tag_that_is_half_written_is_awaited(home: Home) -> None:
    with PaimonStore.open(home) as store:
        store.upsert(CANDLES_1M, make_candles([1]))
        store.tag(CANDLES_1M, "whole")
        text = (folder(store, "tag") / "tag-whole").read_text()
        written = folder(store, "tag") / "tag-in-place"
        written.write_text(text[:20])

        def finish() -> None:
            time.sleep(0.1)
            written.write_text(text)

        writer = threading.Thread(target=finish)
        writer.start()
        assert store.tags(CANDLES_1M) == {"whole": 1, "in-place": 1}
        writer.join()


def test_a_tag_is_set_once_and_only_to_a_snapshot_that_is_there(home: Home) -> None:
    with PaimonStore.open(home) as store:
        with pytest.raises(ValueError, match="has no snapshot"):
            store.tag(CANDLES_1M, "early")
        store.upsert(CANDLES_1M, make_candles([1]))
        store.tag(CANDLES_1M, "once")
        with pytest.raises(ValueError, match="choose another name"):
            store.tag(CANDLES_1M, "once", 1)
        with pytest.raises(ValueError, match="has no snapshot 7"):
            store.tag(CANDLES_1M, "other", 7)
        assert store.scan(CANDLES_1M, tag="once").num_rows == 1
