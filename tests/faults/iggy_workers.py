"""A publisher and a reader of an Iggy spine, each a process: `python iggy_workers.py publish|read …`.

Message n of a partition says n, so what was lost, doubled or reordered shows in any reading. The publisher
prints how many messages of each partition are acknowledged; the reader keeps what it read in an SQLite file,
together with how far it is, and tells the log afterwards.
"""

import json
import random
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from lakehouse import logs
from lakehouse.settings import load_settings
from streaming.feed.publisher import Publisher
from streaming.spine.contract import Partition, SpineUnavailableError
from streaming.spine.iggy import IggySpine
from streaming.spine.topics import TRADES

STREAM = "lakehouse-simulated"
GROUP = "hot"
PARTITIONS = [Partition(TRADES, number) for number in range(3)]


def opened(values: dict[str, Any]) -> IggySpine:
    """Open the log as soon as its server can be reached."""
    while True:
        try:
            return IggySpine.open(load_settings(**values), STREAM)
        except SpineUnavailableError:
            time.sleep(0.1)


def publish(values: dict[str, Any], seed: int) -> None:
    """Publish without an end, from where the log ends."""
    chances = random.Random(seed)
    with opened(values) as spine:
        publisher = None
        while publisher is None:
            try:
                publisher = Publisher(spine)
            except SpineUnavailableError:
                time.sleep(0.1)
        ends = publisher.ends(after={})
        while True:
            batch = {
                partition: [b"%d" % (ends[partition] + i) for i in range(chances.randint(0, 40))]
                for partition in chances.sample(PARTITIONS, 3)
            }
            publisher.publish(batch)
            ends = publisher.ends(after={})
            print(json.dumps([ends[partition] for partition in PARTITIONS]), flush=True)
            time.sleep(chances.choice((0, 0.002, 0.01)))


def read(values: dict[str, Any], file: Path) -> None:
    """Read without an end, from where the file ends."""
    with closing(sqlite3.connect(file)) as kept, opened(values) as spine:
        kept.execute("PRAGMA journal_mode=WAL")
        kept.execute("CREATE TABLE IF NOT EXISTS messages (number INT, position INT, payload BLOB)")
        offsets = {partition: reached(kept, partition) for partition in PARTITIONS}
        while True:
            try:
                for partition in PARTITIONS:
                    batch = spine.read(partition, offsets[partition], 500)
                    with kept:
                        kept.executemany(
                            "INSERT INTO messages VALUES (?, ?, ?)",
                            (
                                (partition.number, batch.first_offset + i, payload)
                                for i, payload in enumerate(batch.payloads)
                            ),
                        )
                    offsets[partition] = batch.next_offset
                spine.commit(GROUP, offsets)
            except SpineUnavailableError as error:
                print(error, file=sys.stderr, flush=True)
                time.sleep(0.1)
            time.sleep(0.005)


def reached(kept: sqlite3.Connection, partition: Partition) -> int:
    """Return how far the reader got in a partition."""
    (count,) = kept.execute("SELECT count(*) FROM messages WHERE number = ?", (partition.number,)).fetchone()
    return int(count)


if __name__ == "__main__":
    role, values, last = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
    logs.configure(role)
    if role == "publish":
        publish(values, int(last))
    else:
        read(values, Path(last))
