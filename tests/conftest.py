"""What all tests share: the real market data, the campaigns' options, and no silent skips in CI."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]

# How long an example takes says more about the machine than about the code.
settings.register_profile("lakehouse", deadline=None)
settings.load_profile("lakehouse")


NOT_IN_A_REGISTRY = "in no package registry"
"""Marks the reason of a skip that CI allows too, because nothing it can install would help."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the fault campaigns in full, not a sample")
    parser.addoption("--seed", type=int, default=20261121, help="seed of the fault campaigns")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("LAKEHOUSE_TEST_FORBID_SKIPS") and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if NOT_IN_A_REGISTRY in reason:
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
    folder = Path(os.environ.get("LAKEHOUSE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(
            f"no real market data, which is {NOT_IN_A_REGISTRY}: {folder} is absent (set LAKEHOUSE_TEST_DATA)"
        )
    return folder
