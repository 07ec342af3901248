"""Iggy and its workers are killed, restarted and paused: nothing lost, nothing doubled, order kept."""

import json
import random
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

import iggy_workers
import pytest
from iggy_workers import GROUP, PARTITIONS, STREAM, reached

from benchmarks.iggy_server import IggyServer, iggy_settings, iggy_values
from streaming.spine.contract import OffsetAheadError, Partition, Spine, SpineUnavailableError
from streaming.spine.iggy import IggySpine

PATIENCE = 1.0
"""Seconds after which a request to a hung server is given up."""

SDK_PATIENCE = 30.0
"""Seconds after which the client itself drops a connection that doesn't answer."""


class Worker:
    """A process that is killed and started again."""

    def __init__(self, role: str, server: IggyServer, last: str, log: Path) -> None:
        values = iggy_values(server.address, iggy_timeout_seconds=PATIENCE)
        self._command = [sys.executable, iggy_workers.__file__, role, json.dumps(values), last]
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self.lines: list[str] = []

    def start(self) -> None:
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=Path(__file__).parents[2]
            )
        threading.Thread(target=self._collect, args=(self._process,)).start()

    def kill(self) -> None:
        assert self._process is not None
        self.check_alive()
        self._process.kill()
        self._process.wait()

    def check_alive(self) -> None:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()[-3000:]

    def __enter__(self) -> "Worker":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _collect(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line)


class World:
    """A server, a publisher and a reader, and what they have told so far."""

    def __init__(self, stack: ExitStack, binary: Path, folder: Path, seed: int) -> None:
        self._kept = folder / "read.db"
        self.server = stack.enter_context(IggyServer(binary, folder / "iggy"))
        self.publisher = stack.enter_context(
            Worker("publish", self.server, str(seed), folder / "publisher.log")
        )
        self.reader = stack.enter_context(Worker("read", self.server, str(self._kept), folder / "reader.log"))

    def acknowledged(self) -> list[int]:
        """How many messages of each partition the publisher was told are durable."""
        whole = [line for line in self.publisher.lines[-2:] if line.endswith("\n")]
        return [int(count) for count in json.loads(whole[-1])] if whole else [0] * len(PARTITIONS)

    def read(self) -> list[int]:
        """How many messages of each partition the reader has."""
        with closing(sqlite3.connect(self._kept, timeout=30)) as kept:
            try:
                return [reached(kept, partition) for partition in PARTITIONS]
            except sqlite3.OperationalError:
                return [0] * len(PARTITIONS)  # it has only just begun

    def payloads(self, partition: Partition) -> list[tuple[int, bytes]]:
        """What the reader has of a partition, in the order in which it came."""
        with closing(sqlite3.connect(self._kept)) as kept:
            question = "SELECT position, payload FROM messages WHERE number = ? ORDER BY rowid"
            return kept.execute(question, (partition.number,)).fetchall()

    def wait_for_progress(self) -> None:
        """Wait until messages that are published from now on are acknowledged and read."""
        before = self.acknowledged()
        deadline = time.monotonic() + 60
        while any(now <= then for now, then in zip(self.acknowledged(), before, strict=True)):
            self._wait(deadline, "the publisher goes on")
        self.wait_until_read(self.acknowledged())

    def wait_until_read(self, ends: list[int]) -> None:
        deadline = time.monotonic() + 60
        while any(now < then for now, then in zip(self.read(), ends, strict=True)):
            self._wait(deadline, f"the reader has {ends}")

    def _wait(self, deadline: float, wanted: str) -> None:
        self.publisher.check_alive()
        self.reader.check_alive()
        assert time.monotonic() < deadline, f"not within a minute: {wanted}"
        time.sleep(0.02)


def hurt(world: World, fault: str, chances: random.Random) -> None:
    """Do something to one of them."""
    match fault:
        case "server right after an acknowledgement":
            told = len(world.publisher.lines)
            while len(world.publisher.lines) == told:
                world.publisher.check_alive()
            world.server.kill()
            time.sleep(chances.choice((0, 0.3)))
            world.server.start()
        case "server stopped":
            world.server.stop()
            time.sleep(chances.choice((0, 2.0)))
            world.server.start()
        case "server hung" | "server hung for long":
            world.server.pause()
            longest = PATIENCE * 4 if fault == "server hung" else SDK_PATIENCE + 8
            time.sleep(chances.uniform(0.8, 1.0) * longest)
            world.server.resume()
        case "publisher" | "reader":
            worker = world.publisher if fault == "publisher" else world.reader
            time.sleep(chances.uniform(0, 0.3))
            worker.kill()
            worker.start()
        case "publisher while the server hangs":
            world.server.pause()
            time.sleep(chances.uniform(0, 2 * PATIENCE))
            world.publisher.kill()
            world.publisher.start()
            time.sleep(chances.uniform(0, 2 * PATIENCE))
            world.server.resume()


def numbers(spine: Spine, partition: Partition) -> list[bytes]:
    found: list[bytes] = []
    while payloads := spine.read(partition, len(found), 50_000).payloads:
        found += payloads
    return found


@pytest.mark.timeout(1800)
def test_faults_of_the_server_and_its_workers_lose_and_double_nothing(
    iggy_binary: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    full = request.config.getoption("--full")
    chances = random.Random(request.config.getoption("--seed"))
    faults = {
        "server right after an acknowledgement": 50 if full else 4,
        "publisher": 50 if full else 2,
        "reader": 50 if full else 2,
        "server stopped": 6 if full else 1,
        "server hung": 6 if full else 1,
        "publisher while the server hangs": 6 if full else 1,
        "server hung for long": 2 if full else 0,
    }
    order = [fault for fault, times in faults.items() for _ in range(times)]
    chances.shuffle(order)
    with ExitStack() as stack:
        world = World(stack, iggy_binary, tmp_path, chances.randrange(10**6))
        world.wait_for_progress()
        for fault in order:
            hurt(world, fault, chances)
            world.wait_for_progress()
        world.publisher.kill()
        acknowledged = world.acknowledged()
        with IggySpine.open(iggy_settings(world.server.address), STREAM) as spine:
            ends = [spine.end(partition) for partition in PARTITIONS]
            world.wait_until_read(ends)
            time.sleep(0.5)  # it tells the log, too
            for i, partition in enumerate(PARTITIONS):
                wanted = [b"%d" % number for number in range(ends[i])]
                assert ends[i] >= acknowledged[i] > 0
                assert numbers(spine, partition) == wanted
                assert world.payloads(partition) == list(enumerate(wanted))
                assert spine.committed(GROUP, partition) == ends[i]


def test_what_is_acknowledged_outlasts_kill_9_of_the_server(
    iggy_binary: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    chances = random.Random(request.config.getoption("--seed"))
    count = 0
    partition = PARTITIONS[0]
    with (
        IggyServer(iggy_binary, tmp_path) as server,
        IggySpine.open(iggy_settings(server.address), STREAM) as spine,
    ):
        for kill in range(50 if request.config.getoption("--full") else 6):
            for size in [chances.choice((1, 100, 1000)) for _ in range(chances.randint(1, 4))]:
                spine.publish({partition: [b"%d" % (count + i) for i in range(size)]})
                count += size
            if kill % 2:
                spine.commit(GROUP, {partition: count})
            server.kill()
            with pytest.raises(SpineUnavailableError):
                spine.publish({partition: [b"never"]})
            server.start()
            assert spine.end(partition) == count
            if kill % 2:
                assert spine.committed(GROUP, partition) == count
        assert numbers(spine, partition) == [b"%d" % i for i in range(count)]


def test_a_log_that_lost_its_messages_is_noticed(iggy_binary: Path, tmp_path: Path) -> None:
    partition = PARTITIONS[0]
    server = IggyServer(iggy_binary, tmp_path / "one")
    with server, IggySpine.open(iggy_settings(server.address), STREAM) as spine:
        spine.publish({partition: [b"a", b"b", b"c"]})
        assert spine.read(partition, 0, 10).next_offset == 3
    another = IggyServer(iggy_binary, tmp_path / "another")
    with another, IggySpine.open(iggy_settings(another.address), STREAM) as spine:
        spine.publish({partition: [b"a"]})
        with pytest.raises(OffsetAheadError, match="ends at offset 1, but 3 was reached before"):
            spine.read(partition, 3, 10)
        with pytest.raises(OffsetAheadError, match="ends at offset 1, but 3 was reached before"):
            spine.commit(GROUP, {partition: 3})
