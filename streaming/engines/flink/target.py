"""Which tables of which servers Flink works on, and how its SQL finds them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lakehouse.home import Home, Namespace
from lakehouse.settings import Settings
from lakehouse.stores.fluss_connection import target_of
from lakehouse.stores.iceberg_catalog import JdbcAddress, jdbc_address, warehouse
from streaming.engines.flink.gateway import GatewaySession
from streaming.engines.flink.job_manager import JobManager
from streaming.engines.flink.statements import Name, statements

ANSWER_SECONDS: Final = 30.0
"""Longest wait for one answer of Flink: it has other work, and its first answers are slow."""

CATALOG_SECONDS: Final = 120.0
"""Longest wait for a catalog: the first statement of a new gateway loads its libraries."""


@dataclass(frozen=True)
class FlinkTarget:
    """One namespace's tables, and the servers to reach them by. Passwords don't show in its repr."""

    job_manager_url: str
    gateway_url: str
    fluss_address: str
    fluss_database: str
    iceberg: JdbcAddress
    iceberg_warehouse: Path
    paimon_warehouse: Path
    namespace: Namespace
    """Name of the database in Paimon and Iceberg, and of Iceberg's catalog."""
    shared_name: str
    """Begins the names of this home's jobs: several homes may use one Flink."""

    @contextmanager
    def session(self, *, with_stream: bool = False) -> Iterator[GatewaySession]:
        """Open a session with the catalogs for the block.

        Args:
            with_stream: have that of Fluss, too. Only the streaming job needs it, and its client takes two
                seconds to go.

        Raises:
            FlinkUnavailableError: the gateway doesn't answer.
            StatementError: a store can't be reached by Flink.
        """
        password = self.iceberg.password.get_secret_value()
        with GatewaySession(self.gateway_url, timeout_seconds=ANSWER_SECONDS, secrets=(password,)) as session:
            catalogs = statements(
                "catalogs",
                {
                    "paimon_warehouse": self.paimon_warehouse.as_uri(),
                    "namespace": Name(self.namespace),
                    "iceberg_uri": self.iceberg.url,
                    "iceberg_user": self.iceberg.user,
                    "iceberg_password": password,
                    "iceberg_warehouse": self.iceberg_warehouse.as_uri(),
                },
            )
            if with_stream:
                catalogs += statements("stream", {"fluss_address": self.fluss_address})
            session.run_all(catalogs, timeout_seconds=CATALOG_SECONDS)
            yield session

    def job_manager(self) -> JobManager:
        """Return a client of the JobManager."""
        return JobManager(self.job_manager_url, timeout_seconds=ANSWER_SECONDS)


def flink_target(settings: Settings, home: Home) -> FlinkTarget:
    """Return where a home's tables are.

    Raises:
        HomeError: the home was not made by `create`.
        CatalogError: the setting of Iceberg's catalog is no address.
    """
    return FlinkTarget(
        job_manager_url=settings.flink_url,
        gateway_url=settings.flink_gateway_url,
        fluss_address=settings.fluss_address,
        fluss_database=target_of(settings, home).database,
        iceberg=jdbc_address(home),
        iceberg_warehouse=warehouse(home),
        paimon_warehouse=home.paimon,
        namespace=home.namespace,
        shared_name=home.shared_name,
    )
