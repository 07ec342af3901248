"""What is asked of the tables that the stream keeps about itself: `gaps`, `quarantine` and `intake`.

They have no asset of product-days, so their maintenance asks it each hour, of the newest two days: what is
older was asked before. A failure is an error, as what they count is not to be trusted, but blocks nothing.
"""

from dataclasses import dataclass
from typing import Any, Final

import dagster as dg
import duckdb

from lakehouse.market.gap import GapStatus
from lakehouse.market.quarantine import Reason
from lakehouse.stores.schemas import GAPS, INTAKE, QUARANTINE, Table

_SHOWN: Final = 10
_ANOTHER_WRITER: Final = (
    "No commit of ours makes that: look for another program that writes to the table, and roll it back to "
    "the snapshot before"
)


@dataclass(frozen=True)
class RecordCheck:
    """A query that returns the rows that are wrong, and what to do about them."""

    name: str
    description: str
    query: str
    remedy: str

    def spec(self, asset: dg.AssetKey) -> dg.AssetCheckSpec:
        """Return the check as Dagster knows it."""
        return dg.AssetCheckSpec(self.name, asset=asset, description=self.description)

    def evaluated(self, connection: duckdb.DuckDBPyConnection) -> dg.AssetCheckResult:
        """Ask it.

        Raises:
            duckdb.Error: the table can't be read.
        """
        cursor = connection.execute(self.query)
        columns = [str(column[0]) for column in cursor.description or []]
        found = cursor.fetchall()
        if not found:
            return dg.AssetCheckResult(passed=True, check_name=self.name)
        first: list[dict[str, Any]] = [
            dict(zip(columns, map(str, row), strict=True)) for row in found[:_SHOWN]
        ]
        return dg.AssetCheckResult(
            passed=False,
            check_name=self.name,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"{self.remedy}.",
            metadata={
                "findings": len(found),
                "first_findings": dg.TableMetadataValue(
                    [dg.TableRecord(row) for row in first],
                    dg.TableSchema(columns=[dg.TableColumn(column) for column in columns]),
                ),
            },
        )


def record_checks(table: Table) -> tuple[RecordCheck, ...]:
    """Return what is asked of a table; nothing of one that has an asset of product-days."""
    if table.name not in _SENSE:
        return ()
    shown, sense, description = _SENSE[table.name]
    newest = f"day >= (SELECT max(day) - 1 FROM {table.name})"
    return (
        RecordCheck(
            "no_message_twice",
            "No message of the log is in the table twice.",
            f"SELECT {', '.join(table.key)}, count(*) AS copies FROM {table.name} "
            f"WHERE {newest} AND spine_offset >= 0 GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL",
            f"A message was written down twice. {_ANOTHER_WRITER}",
        ),
        RecordCheck(
            "rows_make_sense",
            description,
            f"SELECT {shown}, spine_partition, spine_offset FROM {table.name} "
            f"WHERE {newest} AND NOT ({sense}) ORDER BY ALL",
            f"Rows say what can't be. {_ANOTHER_WRITER}",
        ),
    )


def _one_of(values: type[GapStatus] | type[Reason]) -> str:
    return ", ".join(f"'{value.value}'" for value in values)


_SENSE: Final = {
    GAPS.name: (
        "product, first_trade_id, last_trade_id, status",
        f"first_trade_id <= last_trade_id AND status IN ({_one_of(GapStatus)})",
        "Every row has a range of trade ids and a known status.",
    ),
    QUARANTINE.name: (
        "product, reason, detail",
        f"reason IN ({_one_of(Reason)})",
        "Every refused input has a known reason.",
    ),
    INTAKE.name: (
        "product, kind, received, accepted, duplicates, quarantined",
        "received = accepted + duplicates + quarantined AND late <= accepted",
        "received = accepted + duplicates + quarantined, in every row.",
    ),
}
"""Of each table the columns to show, what holds for every row, and the same in words."""
