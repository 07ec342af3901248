"""Exactly one streaming job: however often it is asked for, whatever is killed, whatever changes."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flink_world import FlinkWorld, flink_world
from log_messages import market
from running_cluster import RunningCluster

from streaming.engines.flink import streaming_job
from streaming.engines.flink.errors import (
    FlinkUnavailableError,
    JobFailedError,
    StateLostError,
    StatementError,
)
from streaming.engines.flink.gateway import GatewaySession
from streaming.engines.flink.saved_state import read_record
from streaming.engines.flink.statements import filled

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def world(cluster: RunningCluster, tmp_path: Path) -> Iterator[FlinkWorld]:
    with flink_world(cluster, tmp_path) as made:
        yield made


def test_asking_again_finds_the_job_that_runs(world: FlinkWorld) -> None:
    first = world.job().ensure()
    again = [world.job().ensure() for _ in range(3)]
    assert {job.id for job in again} == {first.id}
    assert [job.id for job in world.live()] == [first.id]


def test_a_job_whose_submission_was_not_answered_is_found(
    world: FlinkWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all = GatewaySession.run_all

    def unanswered(session: GatewaySession, statements: list[str], *, timeout_seconds: float) -> object:
        result = run_all(session, statements, timeout_seconds=timeout_seconds)
        if result.job_id:
            raise FlinkUnavailableError("the answer is lost")
        return result

    monkeypatch.setattr(GatewaySession, "run_all", unanswered)
    job = world.job().ensure()
    assert [one.id for one in world.live()] == [job.id]
    monkeypatch.undo()
    assert world.job().ensure().id == job.id


@pytest.mark.full
def test_a_second_job_is_cancelled(world: FlinkWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.job().ensure()
    twin = world.job()
    with monkeypatch.context() as patched:
        patched.setattr(twin, "live", lambda _manager: [])
        patched.setattr(streaming_job, "newest_state", lambda *_: None)
        second = twin.ensure()
    assert {job.id for job in world.live()} == {first.id, second.id}
    assert world.job().ensure().id == first.id
    assert [job.id for job in world.live()] == [first.id]


@pytest.mark.full
@pytest.mark.parametrize(
    "names",
    [("flink-taskmanager",), ("flink-jobmanager",), ("flink-gateway", "zookeeper")],
    ids=lambda names: "-".join(names),
)
def test_tables_are_exact_after_kills_during_the_run(world: FlinkWorld, names: tuple[str, ...]) -> None:
    job = world.job().ensure()
    trades = market(5, 6_000)
    pushing = threading.Event()

    def kill() -> None:
        pushing.wait()
        world.cluster.kill(*names)

    killer = threading.Thread(target=kill)
    killer.start()
    for start in range(0, len(trades), 500):
        world.push(trades[max(start - 200, 0) : start + 500])
        if start == 2_000:
            world.wait(lambda: world.checkpoints(job) > 0, "no checkpoint")
            pushing.set()
    killer.join()
    world.cluster.start(*names, seconds=120)
    world.check()
    assert [one.id for one in world.live()] == [job.id]
    assert world.job().ensure().id == job.id


@pytest.mark.full
def test_everything_stopped_and_started_goes_on_by_itself(world: FlinkWorld) -> None:
    job = world.job().ensure()
    trades = market(6, 2_000)
    world.push(trades[:1_000])
    world.check()
    world.cluster.kill("flink-taskmanager", "flink-jobmanager", "flink-gateway", "zookeeper")
    world.cluster.start(seconds=180)
    world.push(trades[800:])
    world.check()
    assert [one.id for one in world.live()] == [job.id]


@pytest.mark.full
def test_another_version_goes_on_from_a_savepoint(world: FlinkWorld) -> None:
    first = world.job().ensure()
    trades = market(7, 3_000)
    world.push(trades[:1_500])
    world.wait(lambda: world.checkpoints(first) > 0, "no checkpoint")
    changed = world.job(lateness_minutes=11)
    assert changed.name != world.job().name
    second = changed.ensure()
    assert second.id != first.id
    world.push(trades[1_000:2_500])
    world.check()
    third = world.job(lateness_minutes=11, flink_parallelism=1).ensure()
    world.push(trades[2_000:])
    world.check()
    assert [job.id for job in world.live()] == [third.id]
    record = read_record(world.home.folder / "flink_job.json")
    assert record is not None
    assert record.started_from is not None
    assert f"savepoint-{second.id[:6]}-" in record.started_from


@pytest.mark.full
def test_a_cancelled_job_goes_on_from_its_last_checkpoint(world: FlinkWorld) -> None:
    first = world.job().ensure()
    trades = market(8, 2_000)
    world.push(trades[:1_200])
    world.check()
    assert world.job().ensure().id == first.id
    with world.flink.job_manager() as manager:
        manager.cancel(first.id, timeout_seconds=60)
    world.push(trades[1_000:])
    second = world.job().ensure()
    assert second.id != first.id
    world.check()


def test_a_job_whose_state_is_gone_is_not_started_anew(world: FlinkWorld) -> None:
    job = world.job().ensure()
    world.push(market(9, 300))
    world.check()
    world.job().ensure()
    with world.flink.job_manager() as manager:
        path = manager.checkpoints(job.id).last_path
        assert path is not None
        manager.cancel(job.id, timeout_seconds=60)
    for file in Path(path.removeprefix("file:")).parent.glob("chk-*/_metadata"):
        file.unlink()
    with pytest.raises(StateLostError, match=job.id):
        world.job().ensure()
    assert world.live() == []


@pytest.mark.full
def test_sql_that_the_state_does_not_fit_is_one_sentence(
    world: FlinkWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.job().ensure()
    world.push(market(10, 300))
    world.check()
    made = streaming_job.statements

    def without_minutes(file: str, parameters: streaming_job.Parameters) -> list[str]:
        if file != "streaming":
            return made(file, parameters)
        # One state fewer: what the savepoint holds of it belongs to nothing.
        return [text for text in made(file, parameters) if "mini-batch" not in text]

    with monkeypatch.context() as patched:
        patched.setattr(streaming_job, "statements", without_minutes)
        with pytest.raises(JobFailedError, match="state") as failed:
            world.job().ensure()
    assert "\n" not in str(failed.value)
    second = world.job().ensure()
    assert second.id != first.id
    world.check()


def test_a_wrong_statement_ends_in_one_sentence_without_secrets(world: FlinkWorld) -> None:
    password = world.flink.iceberg.password.get_secret_value()
    assert password
    with world.flink.session() as session:
        with pytest.raises(StatementError, match="nowhere") as missing:
            session.run("SELECT * FROM nowhere", timeout_seconds=60)
        wrong = filled(
            "CREATE CATALOG x WITH ('type' = ${kind}, 'p' = ${p});", {"kind": "none", "p": password}
        )
        with pytest.raises(StatementError) as refused:
            session.run(wrong[0], timeout_seconds=60)
    for error in (missing, refused):
        assert "\n" not in str(error.value)
        assert password not in str(error.value)
    assert password not in repr(world.flink)
