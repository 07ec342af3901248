"""The log that the settings choose, and what a person reads where Iggy can't be used."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from benchmarks.iggy_server import iggy_settings
from lakehouse.home import Home
from lakehouse.settings import load_settings
from streaming.spine.contract import Partition, SpineError, SpineUnavailableError
from streaming.spine.opening import open_spine
from streaming.spine.sqlite import SqliteSpine


@pytest.fixture
def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def mute_address() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_the_embedded_log_is_in_the_home(tmp_path: Path) -> None:
    home = Home(tmp_path, "simulated").create()
    with open_spine(load_settings(home=tmp_path, spine_partitions=4), home) as spine:
        assert isinstance(spine, SqliteSpine)
        assert spine.partitions == 4
    assert home.spine.exists()


def test_the_embedded_log_needs_nothing_of_iggy(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from lakehouse.home import Home; "
        "from lakehouse.settings import load_settings; from streaming.spine.opening import open_spine; "
        "open_spine(load_settings(), Home(Path(sys.argv[1]), 'market').create()).close(); "
        "assert 'apache_iggy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True, cwd=Path(__file__).parents[3])


def test_a_server_that_is_not_there(tmp_path: Path, free_address: str) -> None:
    started = time.monotonic()
    with pytest.raises(
        SpineUnavailableError, match=r"^no connection to Iggy at [^ ]+ .*LAKEHOUSE_IGGY_ADDRESS"
    ):
        open_spine(iggy_settings(free_address), Home(tmp_path, "market").create())
    assert time.monotonic() - started < 5


def test_a_server_that_never_answers(tmp_path: Path, mute_address: str) -> None:
    started = time.monotonic()
    with pytest.raises(
        SpineUnavailableError, match=r"within 0\.5 s: wait for it, or .*LAKEHOUSE_IGGY_ADDRESS"
    ):
        open_spine(iggy_settings(mute_address, iggy_timeout_seconds=0.5), Home(tmp_path, "market").create())
    assert 0.5 <= time.monotonic() - started < 5


def test_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SpineError, match="LAKEHOUSE_IGGY_ADDRESS: 'nowhere' is not host:port"):
        open_spine(iggy_settings("nowhere"), Home(tmp_path, "market").create())


def test_a_home_stays_with_the_log_it_began_with(tmp_path: Path, free_address: str) -> None:
    home = Home(tmp_path, "market").create()
    open_spine(load_settings(home=tmp_path), home).close()
    with pytest.raises(SpineError, match=r"in the sqlite log, not in iggy: set LAKEHOUSE_SPINE=sqlite, or"):
        open_spine(iggy_settings(free_address), home)
    other = Home(tmp_path, "simulated").create()
    with pytest.raises(SpineUnavailableError, match="no connection to Iggy"):
        open_spine(iggy_settings(free_address), other)
    with pytest.raises(SpineError, match="in the iggy log, not in sqlite: set LAKEHOUSE_SPINE=iggy"):
        open_spine(load_settings(home=tmp_path), other)


def test_no_error_shows_the_password(tmp_path: Path, free_address: str, mute_address: str) -> None:
    for address in (free_address, mute_address, "nowhere"):
        settings = iggy_settings(address, iggy_password=SecretStr("s3cret"), iggy_timeout_seconds=0.2)
        with pytest.raises(SpineError) as caught:
            open_spine(settings, Home(tmp_path, "market").create())
        shown = f"{caught.value!r} {caught.value} {caught.value.__cause__!r} {settings!r}"
        assert "s3cret" not in shown


@pytest.mark.parametrize("worker", ["feed", "archive"])
def test_a_worker_ends_with_one_sentence(worker: str, tmp_path: Path, free_address: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", f"streaming.workers.{worker}"],
        env=os.environ
        | {"LAKEHOUSE_HOME": str(tmp_path), "LAKEHOUSE_SPINE": "iggy", "LAKEHOUSE_IGGY_ADDRESS": free_address}
        | {"LAKEHOUSE_METRICS_PORT": "0"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert f"no connection to Iggy at {free_address}" in ended.stderr


def test_partitions_are_known_by_their_name(tmp_path: Path) -> None:
    with open_spine(load_settings(home=tmp_path), Home(tmp_path, "market").create()) as spine:
        assert spine.publish({Partition("sessions", 0): [b"s"]}) == {Partition("sessions", 0): 0}
        with pytest.raises(SpineError, match="no partition"):
            spine.end(Partition("sessions", 1))
