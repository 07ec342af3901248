"""Comparing two queries with the same key: which rows are missing, there twice, or have other values.

Both queries return `day`, `key` (text) and the columns to compare. DuckDB's decimals are exact, and nothing
here rounds: a tolerance is given by column, for values that are not exact by construction.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import duckdb

from lakehouse.reconciliation.breaks import Break, Kind


@dataclass(frozen=True)
class Comparison:
    """Two accounts of the same thing.

    The queries are written here, never by anybody else: what comes from outside reaches them as parameters,
    `$product`, `$days` (of which `$first_day` and `$last_day`) and those that a comparison adds.
    """

    name: str
    expected_table: str
    """Where the account comes from that is taken for right."""
    expected: str
    found_table: str
    found: str
    columns: tuple[str, ...]
    tolerance: Mapping[str, float] = field(default_factory=dict)
    """By column the relative difference that is no drift."""

    def between(
        self,
        connection: duckdb.DuckDBPyConnection,
        product: str,
        days: list[date],
        **more: Any,
    ) -> list[Break]:
        """Return the breaks of a product's days, ordered by day, key, kind and column.

        Args:
            connection: over the tables.
            product: whose.
            days: UTC days, at least one.
            more: other parameters that the queries name.

        Raises:
            duckdb.Error: a table can't be read.
        """
        query = self._query()
        given = {"product": product, "days": days, "first_day": min(days), "last_day": max(days)} | more
        named = {name: value for name, value in given.items() if f"${name}" in query}
        return [
            Break(day, self.name, Kind(kind), *rest)
            for day, kind, *rest in connection.execute(query, named).fetchall()
        ]

    def _query(self) -> str:
        pairs = "".join(f", e.{name} AS e_{name}, f.{name} AS f_{name}" for name in self.columns)
        rows = [
            *(self._missing(*side) for side in (("f", self.found_table), ("e", self.expected_table))),
            *(self._duplicate(*side) for side in (("f", self.found_table), ("e", self.expected_table))),
            *(self._drift(name) for name in self.columns),
        ]
        return f"""
            WITH expected AS ({self.expected}), found AS ({self.found}),
            e AS ({_counted("expected")}), f AS ({_counted("found")}),
            joined AS MATERIALIZED (
                SELECT coalesce(e.day, f.day) AS day, coalesce(e.key, f.key) AS key,
                    coalesce(e.copies, 0) AS e_copies, coalesce(f.copies, 0) AS f_copies{pairs}
                FROM e FULL JOIN f ON e.day = f.day AND e.key = f.key
            )
            {" UNION ALL ".join(rows)}
            ORDER BY day, key, kind, column_name, table_name"""

    def _missing(self, side: str, table: str) -> str:
        return f"""
            SELECT day, '{Kind.MISSING}' AS kind, '{table}' AS table_name, key, '' AS column_name,
                '1' AS expected, '0' AS found, CAST(-1 AS DECIMAL(38, 16)) AS amount
            FROM joined WHERE {side}_copies = 0"""

    def _duplicate(self, side: str, table: str) -> str:
        return f"""
            SELECT day, '{Kind.DUPLICATE}', '{table}', key, '', '1', CAST({side}_copies AS VARCHAR),
                CAST({side}_copies - 1 AS DECIMAL(38, 16))
            FROM joined WHERE {side}_copies > 1"""

    def _drift(self, column: str) -> str:
        expected, found = f"e_{column}", f"f_{column}"
        differs = f"{expected} IS DISTINCT FROM {found}"
        if tolerance := self.tolerance.get(column):
            # A tolerance is nothing exact: floats will do to apply it.
            limit = f"{tolerance} * abs(CAST({expected} AS DOUBLE))"
            near = f"abs(CAST({found} AS DOUBLE) - CAST({expected} AS DOUBLE)) <= {limit}"
            differs += f" AND NOT coalesce({near}, false)"
        amount = f"{_number(found)} - {_number(expected)}"
        return f"""
            SELECT day, '{Kind.VALUE_DRIFT}', '{self.found_table}', key, '{column}', {_text(expected)},
                {_text(found)}, TRY({amount})
            FROM joined WHERE e_copies = 1 AND f_copies = 1 AND {differs}"""


def _counted(query: str) -> str:
    return f"""
        SELECT *, count(*) OVER (PARTITION BY day, key) AS copies FROM {query}
        QUALIFY row_number() OVER (PARTITION BY day, key) = 1"""


def _text(value: str) -> str:
    return f"coalesce(CAST({value} AS VARCHAR), '')"


def _number(value: str) -> str:
    # By way of text, because booleans and times are no numbers and must not become some.
    return f"TRY_CAST(CAST({value} AS VARCHAR) AS DECIMAL(38, 16))"
