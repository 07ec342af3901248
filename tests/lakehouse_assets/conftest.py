from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from sealed_world import PRODUCTS, simulated_exchange

from lakehouse_assets.definitions import build_defs
from lakehouse_assets.partitions import parsed
from lakehouse_assets.resources import Lakehouse
from streaming.exchanges.simulated.server import SimulatedExchange


@pytest.fixture(scope="session")
def exchange() -> Iterator[SimulatedExchange]:
    with simulated_exchange() as running:
        yield running


@pytest.fixture
def lakehouse_settings(exchange: SimulatedExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings for an empty home fed by the simulated exchange; returns the home's root."""
    root = tmp_path / "home"
    monkeypatch.setenv("LAKEHOUSE_HOME", str(root))
    monkeypatch.setenv("LAKEHOUSE_FEED", "simulated")
    monkeypatch.setenv("LAKEHOUSE_PRODUCTS", ",".join(PRODUCTS))
    monkeypatch.setenv("LAKEHOUSE_SIMULATED_REST_PORT", exchange.rest_url.rpartition(":")[2])
    return root


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


@pytest.fixture
def defs(lakehouse_settings: Path) -> dg.Definitions:
    return build_defs()


@pytest.fixture
def tables(defs: dg.Definitions) -> Lakehouse:
    found = (defs.resources or {})["lakehouse"]
    assert isinstance(found, Lakehouse)
    return found


Materialize = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def materialize(defs: dg.Definitions, instance: dg.DagsterInstance) -> Materialize:
    """Return a function that materializes assets for a partition key and returns the run's result."""

    def run(key: str, *assets: str, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        assert parsed(key)
        job = defs.resolve_job_def("seal_days")
        return job.execute_in_process(
            partition_key=key,
            instance=instance,
            raise_on_error=raise_on_error,
            asset_selection=[dg.AssetKey(name) for name in assets] or None,
        )

    return run
