"""What all tests share: the real market data, the campaigns' options, their order, and no silent skips."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from pieces import InPieces, turn, uses_cluster
from xdist.remote import Producer

from benchmarks.iggy_server import ADDRESS, BINARY, IggyServer

ROOT = Path(__file__).parents[1]

# How long an example takes says more about the machine than about the code.
settings.register_profile("lakehouse", deadline=None)
settings.load_profile("lakehouse")


NOT_IN_A_REGISTRY = "in no package registry"
"""Marks the reason of a skip that CI allows too, because nothing it can install would help."""

DATA = "LAKEHOUSE_TEST_DATA"
COMPOSE = "LAKEHOUSE_TEST_COMPOSE"

MAY_BE_ABSENT = (DATA, COMPOSE, ADDRESS, BINARY)
"""What gives a test something that is in no registry. Only a skip that names one of these which isn't set is
allowed where skips are forbidden."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the fault campaigns in full, not a sample")
    parser.addoption("--seed", type=int, default=20261121, help="seed of the fault campaigns")


def pytest_configure(config: pytest.Config) -> None:
    """Have the cluster's programs compiled quickly: a test is over before the best code would pay.

    The campaigns in full run them as they are used.
    """
    if not config.getoption("--full"):
        os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> InPieces:
    return InPieces(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests, and leave out what only the campaigns in full run.

    One process alone comes to the cluster last: a person sees first what takes little.
    """
    if hasattr(config, "workerinput"):  # one of several processes
        items.sort(key=lambda item: turn(item.path))
    else:
        items.sort(key=lambda item: uses_cluster(item.path))
    if config.getoption("--full"):
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("full")]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("LAKEHOUSE_TEST_FORBID_SKIPS") and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if NOT_IN_A_REGISTRY in reason and any(
            name in reason and name not in os.environ for name in MAY_BE_ABSENT
        ):
            return report
        report.outcome = "failed"
        report.longrepr = f"skips are forbidden here (LAKEHOUSE_TEST_FORBID_SKIPS): {reason}"
    return report


@pytest.fixture(autouse=True)
def _settings_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's LAKEHOUSE_ variables and .env must not reach a test."""
    for name in list(os.environ):
        if name.startswith("LAKEHOUSE_") and not name.startswith("LAKEHOUSE_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setitem(os.environ, "LAKEHOUSE_HOME", os.devnull + "/no-home-was-set-by-the-test")


@pytest.fixture(scope="session")
def market_data() -> Path:
    """The folder of real recordings; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get(DATA, ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real market data, which is {NOT_IN_A_REGISTRY}: {folder} is absent (set {DATA})")
    return folder


@pytest.fixture(scope="session")
def iggy_binary() -> Path:
    """Iggy's server program; tests that need one of their own are skipped where it isn't given."""
    if BINARY not in os.environ:
        pytest.skip(f"no Iggy server, which is {NOT_IN_A_REGISTRY}: set {BINARY} to its program")
    return Path(os.environ[BINARY])


@pytest.fixture(scope="session")
def iggy_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an Iggy server that several tests share; they are skipped where there is none."""
    if ADDRESS in os.environ:
        yield os.environ[ADDRESS]
    elif BINARY in os.environ:
        with IggyServer(Path(os.environ[BINARY]), tmp_path_factory.mktemp("iggy")) as server:
            yield server.address
    else:
        pytest.skip(
            f"no Iggy server, which is {NOT_IN_A_REGISTRY}: set {ADDRESS} to one, or {BINARY} to its program"
        )
