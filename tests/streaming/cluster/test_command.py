"""`lakehouse cluster` as a person types it: what can't be done is one sentence, and the exit code says it."""

from pathlib import Path

import pytest
from typed_commands import output_of, run


@pytest.mark.parametrize(
    ("arguments", "settings", "sentence"),
    [
        (["run", "flink"], {}, "'flink' is no process that can be run: choose from zookeeper, "),
        (["run", "postgres"], {}, "'postgres' is no process that can be run"),
        (["ready", "nobody"], {}, "'nobody' is no process: choose from zookeeper, postgres, "),
        (
            ["up"],
            {"cluster_ports": "postgres"},
            "LAKEHOUSE_CLUSTER_PORTS: 'postgres' isn't a name and a port",
        ),
        (["up"], {"fluss_address": "10.0.0.3:9123"}, "LAKEHOUSE_FLUSS_ADDRESS is '10.0.0.3:9123'"),
        (["up"], {"home": "/dev/null/home"}, "/dev/null/home/cluster can't be used (Not a directory)"),
        (["up"], {"spine_partitions": "none"}, "LAKEHOUSE_SPINE_PARTITIONS: "),
    ],
)
def test_what_can_not_be_done_is_one_sentence(
    tmp_path: Path, arguments: list[str], settings: dict[str, str], sentence: str
) -> None:
    done = run(tmp_path, "cluster", *arguments, **settings)
    assert done.returncode == 1
    assert f"lakehouse cluster {arguments[0]}: " in done.stderr
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_another_java_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    for arguments in (["cluster", "up"], ["up", "--no-dagster"]):
        done = run(tmp_path, *arguments, profile="cluster", spine="sqlite", metrics_port="0")
        assert done.returncode == 1
        assert f"lakehouse {arguments[0]}" in done.stderr
        assert f"Java 17 to 21 is needed, and {java} is Java 11: install one" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_cluster_that_does_not_run_is_said(tmp_path: Path) -> None:
    done = run(tmp_path, "cluster", "status")
    assert done.returncode == 1
    assert "The cluster doesn't run: start it with `lakehouse cluster up`" in done.stdout
    assert "wasn't running" in output_of(tmp_path, "cluster", "down")


def test_a_process_of_nobody_is_not_ready(tmp_path: Path) -> None:
    # In a container every service has its name; here zookeeper is nobody's.
    assert run(tmp_path, "cluster", "ready", "zookeeper").returncode == 1


def test_help_says_what_is_needed(tmp_path: Path) -> None:
    text = output_of(tmp_path, "cluster", "--help")
    for word in ("Java 17", "Maven", "PostgreSQL", "up", "down", "status"):
        assert word in text
