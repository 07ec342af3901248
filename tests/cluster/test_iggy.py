"""Iggy as the log: topics of another shape, who is let in, and connections that break."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from apache_iggy import UserStatus

from benchmarks.iggy_server import IggyServer, iggy_settings
from streaming.spine.contract import Partition, SpineError, SpineUnavailableError
from streaming.spine.iggy import MAX_MESSAGE_BYTES, IggySpine
from streaming.spine.iggy_connection import IggyConnection
from streaming.spine.iggy_requests import CREATE_TOPIC, DELETE_SEGMENTS, create_topic, delete_segments
from streaming.spine.topics import TOPICS, TRADES

TRADES_0 = Partition(TRADES, 0)


@pytest.fixture
def connection(iggy_address: str) -> Iterator[IggyConnection]:
    opened = IggyConnection(iggy_settings(iggy_address))
    yield opened
    opened.close()


@pytest.fixture
def stream(connection: IggyConnection) -> Iterator[str]:
    name = f"lakehouse-test-{uuid4().hex}"
    yield name
    if connection.ask(lambda client: client.get_stream(name)) is not None:
        connection.ask(lambda client: client.delete_stream(name))


def make_topic(connection: IggyConnection, stream: str, topic: str, partitions: int, **options: str) -> None:
    if connection.ask(lambda client: client.get_stream(stream)) is None:
        connection.ask(lambda client: client.create_stream(stream))
    request = create_topic(stream, topic, partitions, options)
    connection.ask(lambda client: client.send_binary_request(CREATE_TOPIC, request))


def test_topics_are_made_as_durable_as_the_server_can(connection: IggyConnection, stream: str) -> None:
    strict = iggy_settings(connection.address, iggy_allow_weak_topics=False)
    IggySpine.open(iggy_settings(connection.address), stream).close()
    kinds = set()
    for name in TOPICS:
        topic = connection.ask(lambda client, name=name: client.get_topic(stream, name))
        assert topic is not None
        options = topic.options.to_scalar_dict()
        kinds.add("durability" in options)
        if "durability" in options:
            assert options["durability"] == options["consumer_offset_durability"] == "persisted"
        else:  # a server from before 0.9
            assert options["enforce_fsync"] is True
            assert options["messages_required_to_save"] == 1
    if kinds == {True}:
        IggySpine.open(strict, stream).close()
        with IggySpine.open(strict, f"{stream}-new") as spine:
            assert spine.publish({TRADES_0: [b"m"]}) == {TRADES_0: 0}
        connection.ask(lambda client: client.delete_stream(f"{stream}-new"))
    else:
        assert kinds == {False}
        with pytest.raises(SpineError, match=r"may lose acknowledged messages.*ALLOW_WEAK_TOPICS=true"):
            IggySpine.open(strict, stream)
        with pytest.raises(SpineError, match=r"outlast a crash: use version 0\.9, or accept that with"):
            IggySpine.open(strict, f"{stream}-new")
        connection.ask(lambda client: client.delete_stream(f"{stream}-new"))


def test_a_topic_that_somebody_made_weak_is_refused(connection: IggyConnection, stream: str) -> None:
    for topic in TOPICS:
        make_topic(connection, stream, topic, 1 if topic == "sessions" else 3)
    with pytest.raises(SpineError, match=r"durability is .*delete it, so that it is made anew"):
        IggySpine.open(iggy_settings(connection.address, iggy_allow_weak_topics=False), stream)
    with IggySpine.open(iggy_settings(connection.address), stream) as spine:
        assert spine.publish({TRADES_0: [b"m"]}) == {TRADES_0: 0}


@pytest.mark.parametrize("options", [{"message_expiry": "1 day"}, {"max_topic_size": "10 GiB"}])
def test_a_topic_that_drops_by_itself_is_refused(
    connection: IggyConnection, stream: str, options: dict[str, str]
) -> None:
    make_topic(connection, stream, TRADES, 3, **options)
    with pytest.raises(SpineError, match="drops messages by itself, read or not: set its message_expiry"):
        IggySpine.open(iggy_settings(connection.address), stream)


def test_a_topic_of_another_shape_is_refused(connection: IggyConnection, stream: str) -> None:
    make_topic(connection, stream, TRADES, 5)
    with pytest.raises(SpineError, match="has 5 partitions, not 3: set LAKEHOUSE_SPINE_PARTITIONS=5"):
        IggySpine.open(iggy_settings(connection.address), stream)
    make_topic(connection, stream, "sessions", 2)
    with pytest.raises(SpineError, match="has 2 partitions, not 1: delete it"):
        IggySpine.open(iggy_settings(connection.address, spine_partitions=5), stream)


def test_a_wrong_password_is_one_sentence(iggy_address: str, stream: str) -> None:
    with pytest.raises(
        SpineError, match="doesn't let the user 'iggy' in: set LAKEHOUSE_IGGY_USERNAME"
    ) as caught:
        IggySpine.open(iggy_settings(iggy_address, iggy_password="wr0ng"), stream)
    assert not isinstance(caught.value, SpineUnavailableError), "trying again would not help"
    assert "wr0ng" not in str(caught.value)


def test_a_user_without_permissions_is_one_sentence(connection: IggyConnection, stream: str) -> None:
    name = f"guest-{uuid4().hex[:8]}"
    connection.ask(lambda client: client.create_user(name, "guest-password", UserStatus.Active))
    try:
        with pytest.raises(SpineError, match=f"the user '{name}' may not do this .*LAKEHOUSE_IGGY_USERNAME"):
            IggySpine.open(
                iggy_settings(connection.address, iggy_username=name, iggy_password="guest-password"), stream
            )
    finally:
        connection.ask(lambda client: client.delete_user(name))


def test_a_worker_ends_with_one_sentence(iggy_address: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "streaming.workers.hot"],
        env=os.environ
        | {"LAKEHOUSE_HOME": str(tmp_path), "LAKEHOUSE_SPINE": "iggy", "LAKEHOUSE_IGGY_ADDRESS": iggy_address}
        | {"LAKEHOUSE_IGGY_PASSWORD": "wr0ng", "LAKEHOUSE_METRICS_PORT": "0"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "doesn't let the user" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "wr0ng" not in ended.stderr


def test_processes_that_start_at_once_make_one_log(connection: IggyConnection, stream: str) -> None:
    opened: list[IggySpine] = []
    threads = [
        threading.Thread(
            target=lambda: opened.append(IggySpine.open(iggy_settings(connection.address), stream))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 8
    opened[0].publish({TRADES_0: [b"m"]})
    for spine in opened:
        assert spine.end(TRADES_0) == 1
        spine.close()


def test_messages_that_iggy_cannot_take_are_refused_before_any_is_sent(
    connection: IggyConnection, stream: str
) -> None:
    with IggySpine.open(iggy_settings(connection.address), stream) as spine:
        for wrong in (b"", bytes(MAX_MESSAGE_BYTES + 1)):
            with pytest.raises(SpineError, match="messages of 1 to 64,000,000 bytes"):
                spine.publish({TRADES_0: [b"m"], Partition(TRADES, 1): [wrong]})
        assert spine.end(TRADES_0) == 0


def test_what_is_missing_without_our_retention_is_an_error(connection: IggyConnection, stream: str) -> None:
    with IggySpine.open(iggy_settings(connection.address), stream, segment_bytes=2**20) as spine:
        for _ in range(40):
            spine.publish({TRADES_0: [bytes(2**16)]})
        request = delete_segments(stream, TRADES, 0, 1)
        connection.ask(lambda client: client.send_binary_request(DELETE_SEGMENTS, request))
        time.sleep(1)
        for read in (lambda: spine.read(TRADES_0, 0, 1), lambda: spine.start(TRADES_0)):
            with pytest.raises(SpineUnavailableError, match=r"doesn't show .*trades/0, which nobody dropped"):
                read()
        assert len(spine.read(TRADES_0, 39, 10).payloads) == 1


def test_the_servers_own_tools_see_how_far_a_group_is(connection: IggyConnection, stream: str) -> None:
    with IggySpine.open(iggy_settings(connection.address), stream) as spine:
        spine.publish({TRADES_0: [b"m"] * 10})
        spine.commit("archive", {TRADES_0: 7})

    async def next_of_archive(client: object) -> list[object]:
        from apache_iggy import Consumer, IggyClient, PollingStrategy

        assert isinstance(client, IggyClient)
        return await client.poll_messages(  # type: ignore[return-value]
            stream,
            TRADES,
            consumer=Consumer.Single("archive"),
            polling_strategy=PollingStrategy.Next(),
            count=1,
            auto_commit=False,
            partition_id=0,
        )

    (message,) = connection.ask(next_of_archive)
    assert message.offset() == 7  # type: ignore[attr-defined]


def test_a_restart_of_the_server_costs_one_error(iggy_binary: Path, tmp_path: Path) -> None:
    with (
        IggyServer(iggy_binary, tmp_path) as server,
        IggySpine.open(iggy_settings(server.address), "lakehouse-market") as spine,
    ):
        spine.publish({TRADES_0: [b"a"]})
        for restart in (server.kill, server.stop):
            restart()
            server.start()
            with pytest.raises(SpineUnavailableError, match="no connection to Iggy"):
                spine.end(TRADES_0)
            started = time.monotonic()
            spine.publish({TRADES_0: [b"b"]})
            assert time.monotonic() - started < 3
        assert spine.read(TRADES_0, 0, 10).payloads == [b"a", b"b", b"b"]


def test_what_is_asked_after_a_silence_knows_what_came_of_it(iggy_binary: Path, tmp_path: Path) -> None:
    with (
        IggyServer(iggy_binary, tmp_path) as server,
        IggySpine.open(iggy_settings(server.address, iggy_timeout_seconds=0.5), "lakehouse-market") as spine,
    ):
        for round_number in range(5):
            server.pause()
            for _ in range(2):
                with pytest.raises(SpineUnavailableError, match=r"within 0\.5 s"):
                    spine.publish({TRADES_0: [b"m"]})
            server.resume()
            assert spine.end(TRADES_0) == 2 * (round_number + 1)


def test_a_connection_made_too_late_sends_nothing(iggy_binary: Path, tmp_path: Path) -> None:
    with (
        IggyServer(iggy_binary, tmp_path) as server,
        IggySpine.open(iggy_settings(server.address, iggy_timeout_seconds=2), "lakehouse-market") as spine,
    ):
        server.kill()
        with pytest.raises(SpineUnavailableError):
            spine.end(TRADES_0)
        server.start()
        server.pause()

        def ask() -> None:
            with pytest.raises(SpineUnavailableError):
                spine.end(TRADES_0)

        first = threading.Thread(target=ask)  # connects for 2 s; what is asked meanwhile waits for that
        first.start()
        time.sleep(1)
        with pytest.raises(SpineUnavailableError, match=r"within 2 s"):
            spine.publish({TRADES_0: [b"never"]})
        server.resume()  # 3 s after the start: the second attempt to connect succeeds
        first.join()
        time.sleep(1)
        assert spine.end(TRADES_0) == 0


def test_connections_that_broke_leave_nothing_open(iggy_binary: Path, tmp_path: Path) -> None:
    with (
        IggyServer(iggy_binary, tmp_path) as server,
        IggySpine.open(iggy_settings(server.address), "lakehouse-market") as spine,
    ):
        counts = []
        for _ in range(8):
            server.kill()
            with pytest.raises(SpineUnavailableError):
                spine.end(TRADES_0)
            server.start()
            spine.end(TRADES_0)
            counts.append(len(list(Path("/proc/self/fd").iterdir())))
        assert counts[-1] <= counts[0] + 2, counts


def test_processes_end_cleanly(connection: IggyConnection, stream: str) -> None:
    IggySpine.open(iggy_settings(connection.address), stream).close()
    script = (
        "from benchmarks.iggy_server import iggy_settings; from streaming.spine.iggy import IggySpine\n"
        "from streaming.spine.contract import Partition\n"
        f"with IggySpine.open(iggy_settings({connection.address!r}), {stream!r}) as spine:\n"
        "    spine.publish({Partition('trades', 0): [b'm']})\n"
    )
    codes = [
        subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False).returncode
        for _ in range(12)
    ]
    assert codes == [0] * 12
