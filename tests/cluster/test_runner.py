"""The native runner, on the two smallest processes: what it starts comes back, and nothing stays behind."""

import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import psycopg2
import pytest
from running_cluster import settings_for

from benchmarks.own_cluster import open_folder
from lakehouse.home import native_catalog
from lakehouse.stores.lock import held
from streaming.cluster import postgres
from streaming.cluster.definition import ClusterError, Definition, MissingProgramError, load
from streaming.cluster.runner import Cluster

SMALLEST = ("zookeeper", "postgres")


@pytest.fixture
def definition() -> Definition:
    whole = load()
    return msgspec.structs.replace(whole, process={name: whole.process[name] for name in SMALLEST})


@pytest.fixture
def home() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture
def cluster(home: Path, definition: Definition) -> Iterator[Cluster]:
    made = Cluster(settings_for(home, definition), definition)
    try:
        yield made
    finally:
        made.down()


def up(cluster: Cluster) -> list[str]:
    said: list[str] = []
    try:
        cluster.up(said.append)
    except MissingProgramError as missing:
        pytest.skip(str(missing))
    return said


def ours(home: Path) -> list[psutil.Process]:
    """Every process that has to do with the folder, supervisord included."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(home) in part for part in process.info["cmdline"] or ()):
            found.append(process)
    return found


def eventually(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_up_and_down_leave_the_data_and_nothing_else(cluster: Cluster, home: Path) -> None:
    said = up(cluster)
    assert [line.split()[0] for line in sorted(said)] == sorted(SMALLEST)
    assert {one.name: one.state for one in cluster.status()} == dict.fromkeys(SMALLEST, "ready")
    pids = {one.pid for one in cluster.status()}

    assert up(cluster)  # again: what runs is left alone
    assert {one.pid for one in cluster.status()} == pids

    assert cluster.down()
    assert not ours(home)
    assert cluster.status() == []
    assert not cluster.down()
    for port in cluster.place.ports.values():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port))

    address = native_catalog(home)
    assert stat.S_IMODE(address.stat().st_mode) == 0o600
    up(cluster)
    with psycopg2.connect(address.read_text()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_database(), current_user")
        assert cursor.fetchone() == ("iceberg", "lakehouse")
    connection.close()


@pytest.mark.full
def test_what_a_killed_supervisor_left_behind_is_stopped_by_the_next_start(
    cluster: Cluster, home: Path
) -> None:
    up(cluster)
    before = {one.pid for one in cluster.status()}
    supervisor = int((cluster.place.root / "supervisord.pid").read_text())
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(supervisor))
    assert cluster.status() == []
    assert all(psutil.pid_exists(pid) for pid in before)

    up(cluster)
    assert not any(psutil.pid_exists(pid) for pid in before)
    assert {one.state for one in cluster.status()} == {"ready"}

    os.kill(int((cluster.place.root / "supervisord.pid").read_text()), signal.SIGKILL)
    assert cluster.down()
    assert not ours(home)


def test_a_start_that_fails_stops_what_it_started(home: Path, definition: Definition) -> None:
    deaf = msgspec.structs.replace(definition.process["zookeeper"], ready="registered /nobody/makes/this")
    broken = msgspec.structs.replace(definition, process=definition.process | {"zookeeper": deaf})
    cluster = Cluster(settings_for(home, definition), broken, start_seconds=3)
    with pytest.raises(ClusterError, match=r"zookeeper isn't ready after 3 s: see .*zookeeper\.log"):
        up(cluster)
    assert not ours(home)


def test_a_database_that_was_interrupted_while_made_is_made_again(cluster: Cluster) -> None:
    half = cluster.place.data("postgres") / "data"
    half.mkdir(parents=True)
    (half / "postgresql.conf").write_text("half a start")
    up(cluster)
    assert (half / "PG_VERSION").exists()


def test_no_password_reaches_a_log_or_a_command_line(cluster: Cluster, home: Path) -> None:
    said = up(cluster)
    password = postgres.address(cluster.place, "x").get_secret_value().split(":")[2].split("@")[0]
    assert len(password) >= 32
    logs = [file.read_text(errors="replace") for file in cluster.place.logs.iterdir()]
    lines = [" ".join(process.cmdline()) for process in ours(home)]
    assert logs
    assert not any(password in text for text in (*said, *logs, *lines, repr(cluster.place)))


def test_a_port_in_use_is_one_sentence(cluster: Cluster, home: Path) -> None:
    with socket.create_server(("127.0.0.1", cluster.place.ports["postgres"])) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=f"port {port} on 127.0.0.1, postgres's") as refused:
            up(cluster)
    assert "LAKEHOUSE_CLUSTER_PORTS=postgres=" in str(refused.value)
    assert not ours(home)


def test_too_little_memory_is_one_sentence(home: Path, definition: Definition) -> None:
    whole = psutil.virtual_memory().total // 2**20
    greedy = msgspec.structs.replace(definition, memory_mib=2 * whole)
    with pytest.raises(ClusterError, match=f"takes up to {2 * whole} MiB of memory and"):
        up(Cluster(settings_for(home, definition), greedy))
    assert not ours(home)


def test_a_home_that_postgresql_can_not_enter_is_one_sentence(cluster: Cluster, home: Path) -> None:
    home.chmod(0o700)
    if os.geteuid() != 0:
        up(cluster)  # it runs as we do, and enters what we enter
        return
    with pytest.raises(ClusterError, match=r"PostgreSQL doesn't run as root, and the account .* can't enter"):
        up(cluster)
    assert not ours(home)


def test_two_starts_at_once_are_told_apart(cluster: Cluster, home: Path, definition: Definition) -> None:
    up(cluster)
    with (
        held(cluster.place.root, "cluster"),
        pytest.raises(ClusterError, match="another `lakehouse cluster`"),
    ):
        Cluster(settings_for(home, definition), definition).down()


def test_iggy_runs_where_its_program_is_given(home: Path, iggy_binary: Path) -> None:
    whole = load()
    only = msgspec.structs.replace(whole, process={"iggy": whole.process["iggy"]})
    settings = settings_for(home, only, iggy_binary=iggy_binary, iceberg_catalog="sqlite")
    cluster = Cluster(settings, only)
    try:
        up(cluster)
        assert [one.state for one in cluster.status()] == ["ready"]
        password = settings.iggy_password.get_secret_value()
        assert stat.S_IMODE((cluster.place.root / "supervisord.conf").stat().st_mode) == 0o600
        assert not any(f"PASSWORD={password}" in " ".join(one.cmdline()) for one in ours(home))
    finally:
        cluster.down()
    assert not ours(home)


def test_a_program_of_iggy_that_is_none_is_one_sentence(home: Path) -> None:
    whole = load()
    only = msgspec.structs.replace(whole, process={"iggy": whole.process["iggy"]})
    settings = settings_for(home, only, iggy_binary=home / "iggy-server", iceberg_catalog="sqlite")
    with pytest.raises(ClusterError, match=r"LAKEHOUSE_IGGY_BINARY: .* is not a program that can be run"):
        up(Cluster(settings, only))
