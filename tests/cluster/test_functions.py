"""Our functions for Flink's SQL: compiled without a JDK, and held against sets of numbers."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running_cluster import JARS

from streaming.cluster import functions
from streaming.cluster.definition import ClusterError, MissingProgramError, load, load_sums
from streaming.cluster.functions import ensure_functions, functions_folder
from streaming.cluster.jars import ensure_jars, find_java

DRIVER = Path(__file__).with_name("FirstSeenLines.java")


@pytest.fixture(scope="module")
def java() -> Path:
    try:
        found = find_java(load().java)
        ensure_jars(JARS, load_sums(), found, print)
    except MissingProgramError as missing:
        pytest.skip(str(missing))
    return found


class FirstSeen:
    """The compiled function in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def anew(self) -> None:
        """Forget everything."""
        assert self._process.stdin is not None
        self._process.stdin.write("anew\n")

    def see(self, begin: int, finish: int) -> tuple[bool, list[int]]:
        """Return what it says of a row, and the bounds it knows then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{begin} {finish}\n")
        self._process.stdin.flush()
        said, bounds = self._process.stdout.readline().split(" ", 1)
        return said == "true", json.loads(bounds)


@pytest.fixture(scope="module")
def first_seen(java: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstSeen]:
    sums, made = load_sums(), tmp_path_factory.mktemp("driver")
    ensure_functions(JARS, sums, java)
    (compiler,) = sums.starting_with(("compiler/",))
    libraries = [functions_folder(JARS), made, *(JARS / path for path in sums.starting_with(("flink/",)))]
    classpath = ":".join(map(str, libraries))
    compiling = [java, "-jar", JARS / compiler, "--release", "17", "-cp", classpath, "-d", made, DRIVER]
    subprocess.run(compiling, check=True)
    command = [java, "-cp", classpath, "lakehouse.FirstSeenLines"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield FirstSeen(process)
        assert process.stdin is not None
        process.stdin.close()


RANGES = st.tuples(st.integers(0, 60), st.integers(1, 9))


@given(st.lists(RANGES, min_size=1, max_size=60))
def test_a_row_is_new_when_one_of_its_numbers_is(first_seen: FirstSeen, rows: list[tuple[int, int]]) -> None:
    first_seen.anew()
    seen: set[int] = set()
    for begin, count in rows:
        numbers = set(range(begin, begin + count))
        said, bounds = first_seen.see(begin, begin + count)
        assert said == bool(numbers - seen)
        seen |= numbers
        known = [set(range(*pair)) for pair in zip(bounds[::2], bounds[1::2], strict=True)]
        assert set().union(*known) == seen
        assert bounds == sorted(set(bounds)), "ranges overlap or touch"


def test_what_follows_one_another_is_one_range(first_seen: FirstSeen) -> None:
    first_seen.anew()
    for number in range(1, 2_000):
        assert first_seen.see(number, number + 1) == (True, [1, number + 1])
    assert first_seen.see(1_000, 1_001) == (False, [1, 2_000])


def test_a_source_that_does_not_compile_is_one_sentence(
    java: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Broken.java").write_text("class Broken { int x = nothing; }")
    monkeypatch.setattr(functions, "_SOURCES", tmp_path)
    with pytest.raises(ClusterError, match=r"can't be compiled by .*nothing cannot be resolved"):
        ensure_functions(JARS, load_sums(), java)
    assert not functions_folder(JARS).exists()
