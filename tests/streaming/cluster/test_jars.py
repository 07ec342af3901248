"""Fetching the Java parts: what is missing or wrong is one sentence."""

import hashlib
from pathlib import Path

import pytest

from streaming.cluster.definition import ClusterError, MissingProgramError, Sums, load, load_sums
from streaming.cluster.jars import ensure_jars, find_java

VERSIONS = (17, 21)


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / name
    made.write_text(f"#!/bin/sh\n{script}\n")
    made.chmod(0o755)
    return made


def java(folder: Path, version: str) -> Path:
    return program(folder / "bin", "java", f"echo 'openjdk version \"{version}\" 2025-04-15' >&2")


@pytest.mark.parametrize(
    ("version", "number"), [("11.0.2", "11"), ("1.8.0_402", "8"), ("25", "25"), ("24-ea", "24")]
)
def test_another_java_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, number: str
) -> None:
    java(tmp_path, version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MissingProgramError, match=f"Java 17 to 21 is needed, and .*java is Java {number}: "):
        find_java(VERSIONS)


@pytest.mark.parametrize("version", ["17.0.15", "17-ea", "21.0.1"])
def test_java_home_wins_over_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    wanted, other = java(tmp_path / "home", version), java(tmp_path / "other", "11.0.2")
    monkeypatch.setenv("PATH", str(other.parent), prepend=":")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert find_java(VERSIONS) == wanted
    monkeypatch.delenv("JAVA_HOME")
    with pytest.raises(MissingProgramError, match="is Java 11"):
        find_java(VERSIONS)


def test_no_java_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(MissingProgramError, match="there is no java: install one"):
        find_java(VERSIONS)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MissingProgramError, match=f"{tmp_path}/bin/java doesn't run"):
        find_java(VERSIONS)


def test_no_maven_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgramError, match=r"Maven \(mvn\) is needed"):
        ensure_jars(tmp_path / "jars", load_sums(), Path("java"), print)


def test_what_maven_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    script = """echo 'Downloaded from central: https://x/y/first-1.jar (85 MB at 30 MB/s)'
echo '[ERROR] Could not transfer artifact second: Unknown host -> [Help 1]'
echo '[ERROR] another line'
exit 1"""
    program(tmp_path / "bin", "mvn", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    with pytest.raises(ClusterError, match="Could not transfer artifact second: Unknown host") as refused:
        ensure_jars(tmp_path / "jars", load_sums(), Path("/usr/bin/java"), said.append)
    assert "check the network" in str(refused.value)
    assert "Help" not in str(refused.value)
    assert "another line" not in str(refused.value)
    assert said[1] == "  first-1.jar (85 MB at 30 MB/s)"


def test_jars_that_are_there_are_only_held_to_their_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no Maven: nothing can be fetched
    jar = tmp_path / "flink" / "one.jar"
    jar.parent.mkdir()
    jar.write_bytes(b"a jar")
    sums = Sums({"flink/one.jar": hashlib.sha256(b"a jar").hexdigest()})
    ensure_jars(tmp_path, sums, Path("java"), print)
    jar.write_bytes(b"another jar")
    with pytest.raises(ClusterError, match=r"one\.jar has the SHA-256 sum .*, not .* as committed in"):
        ensure_jars(tmp_path, sums, Path("java"), print)


def test_a_folder_that_can_not_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match="set LAKEHOUSE_CLUSTER_JARS"):
        ensure_jars(tmp_path / "file" / "jars", load_sums(), Path("java"), print)


def test_every_classpath_has_jars_and_every_jar_a_classpath() -> None:
    sums, definition = load_sums(), load()
    used = {path for beginnings in definition.classpaths.values() for path in sums.starting_with(beginnings)}
    compiler = set(sums.starting_with(("compiler/",)))
    assert used | compiler == set(sums.paths)
    for beginnings in definition.classpaths.values():
        assert all(sums.starting_with((beginning,)) for beginning in beginnings)
