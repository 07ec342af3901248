"""What is asked of a reconciled product-day: a check for each comparison and class of break.

An error is what makes a table wrong that something depends on. It fails the run, so that a person is told,
and blocks what is made of reconciled days, which is nothing yet. The exchange's own candles only warn: ours
are exactly our trades, whose ids are complete, and an exchange publishes its candles late and may correct
them. Lost counts are an error that blocks nothing, as for `trades`: a sealed day is complete by its ids,
whatever was counted on its way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import dagster as dg

from lakehouse.reconciliation.archive import LOG_ARCHIVE, SEAL_ARCHIVE
from lakehouse.reconciliation.breaks import Break, Kind
from lakehouse.reconciliation.candles import ARCHIVE_CANDLES, LAYERS
from lakehouse.reconciliation.schema_drift import SCHEMA

EXCHANGE: Final = "candles_exchange"
_SHOWN: Final = 10
_COLUMNS: Final = ("kind", "table_name", "row_key", "column_name", "expected", "found", "amount")

_AGREES: Final = {
    LOG_ARCHIVE: "the trades that the feed accepted and those that the archive took from the log",
    SEAL_ARCHIVE: "what was sealed of the day and what the archive holds now",
    ARCHIVE_CANDLES.name: "the archived trades and `candles_1m`",
    EXCHANGE: "the exchange's own candles and `candles_1m`",
    SCHEMA: "the tables' registered columns and those in the catalog",
} | {layer.name: f"`candles_1m` and `{layer.found_table}`" for layer in LAYERS}

_REMEDIES: Final = {
    LOG_ARCHIVE: "Something was lost or doubled between the feed and the archive. Compare `intake` and "
    "`trades` by spine_offset; what is missing by its id was fetched when the day was sealed",
    SEAL_ARCHIVE: "The archive is no longer what was sealed. If trades came late, `seal_days_that_are_over` "
    "seals the day again; else materialize `trades` for this partition: it fetches what is missing. If it "
    "stays, another program wrote to the table: roll it back to the snapshot before",
    ARCHIVE_CANDLES.name: "The candles are not those of the archived trades. Materialize `candles_1m` for "
    "this partition to rebuild them; if it is `trades` that lacks rows, materialize that first",
    EXCHANGE: "Our candles are not the exchange's. Where `seal_archive` has no break, no trade is missing by "
    "its id: wait a day for the exchange to correct its candles and reconcile again. If it stays, read one "
    "such minute's trades at the exchange",
    SCHEMA: "A table has other columns than this version writes, and nothing else was compared. Find the "
    "program that altered it, and take the change back or migrate the table",
} | {
    layer.name: f"`{layer.found_table}` is not what its minutes add up to. Materialize it for this partition "
    "to compute it again"
    for layer in LAYERS
}

_CLASSES: Final = {
    Kind.MISSING: "Neither of the two lacks a row that the other has",
    Kind.DUPLICATE: "None of the two has a row twice",
    Kind.VALUE_DRIFT: "No row has other values in one than in the other",
    Kind.SCHEMA_DRIFT: "Names, types and nullability of the columns are the same, in any order",
}

_COUNTS: Final = (Kind.MISSING, Kind.DUPLICATE)
_ROWS: Final = (Kind.MISSING, Kind.DUPLICATE, Kind.VALUE_DRIFT)


@dataclass(frozen=True)
class BreakCheck:
    """One class of breaks of one comparison."""

    comparison: str
    kind: Kind

    @property
    def name(self) -> str:
        """The check's name in Dagster."""
        if self.kind is Kind.SCHEMA_DRIFT:
            return "schema_drift"
        return f"{self.comparison}_{self.kind.lower()}"

    @property
    def severity(self) -> dg.AssetCheckSeverity:
        """How bad a break is."""
        if self.comparison == EXCHANGE:
            return dg.AssetCheckSeverity.WARN
        return dg.AssetCheckSeverity.ERROR

    @property
    def blocking(self) -> bool:
        """Whether a break holds up what depends on it."""
        return self.comparison not in (EXCHANGE, LOG_ARCHIVE)

    def spec(self, asset: str, partitions: dg.PartitionsDefinition[str]) -> dg.AssetCheckSpec:
        """Return the check as Dagster knows it."""
        return dg.AssetCheckSpec(
            self.name,
            asset=asset,
            description=f"{_CLASSES[self.kind]}: {_AGREES[self.comparison]}.",
            blocking=self.blocking,
            partitions_def=partitions,
        )

    def evaluated(self, where: str, breaks: Sequence[Break]) -> dg.AssetCheckResult:
        """Return the result for a product-day, given all of its breaks."""
        mine = [one for one in breaks if (one.comparison, one.kind) == (self.comparison, self.kind)]
        if not mine:
            return dg.AssetCheckResult(passed=True, check_name=self.name)
        records = [
            dg.TableRecord({name: str(getattr(one, name)) for name in _COLUMNS}) for one in mine[:_SHOWN]
        ]
        columns = [dg.TableColumn(name) for name in _COLUMNS]
        return dg.AssetCheckResult(
            passed=False,
            check_name=self.name,
            severity=self.severity,
            description=f"{where}: {_REMEDIES[self.comparison]}.",
            metadata={
                "findings": len(mine),
                "first_findings": dg.TableMetadataValue(records, dg.TableSchema(columns=columns)),
            },
        )


BREAK_CHECKS: Final = (
    *(BreakCheck(LOG_ARCHIVE, kind) for kind in _COUNTS),
    *(BreakCheck(SEAL_ARCHIVE, kind) for kind in _ROWS),
    *(BreakCheck(ARCHIVE_CANDLES.name, kind) for kind in _ROWS),
    *(BreakCheck(EXCHANGE, kind) for kind in _ROWS),
    *(BreakCheck(layer.name, kind) for layer in LAYERS for kind in _ROWS),
    BreakCheck(SCHEMA, Kind.SCHEMA_DRIFT),
)
