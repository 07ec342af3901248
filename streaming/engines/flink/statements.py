"""The SQL files: taken apart into statements, with parameters put in as literals that can't be anything else.

A parameter is written `${name}`. Text and numbers become quoted literals, a `Name` becomes a quoted name,
`Rows` become what stands after VALUES or in IN (…); nothing is put in as it is. In a file, statements end
with `;` and an empty line follows; lines that begin with `--` are for people.
"""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib import resources
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_COMMENT: Final = re.compile(r"^[ \t]*--.*\n", re.MULTILINE)
_END: Final = re.compile(r";[ \t]*(?:\n[ \t]*\n|\n?\Z)")


class ParameterError(Exception):
    """A parameter is missing, not used, or can't be put into SQL safely."""


@dataclass(frozen=True)
class Name:
    """The name of a database or a catalog.

    Raises:
        ParameterError: it isn't letters, digits and `_`.
    """

    text: str

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.text) is None:
            raise ParameterError(f"{self.text[:60]!r} is no name for SQL: letters, digits and _ are")


@dataclass(frozen=True)
class Rows:
    """Rows of dates and of whole numbers up to 64 bits.

    Plain literals: of anything else after VALUES Flink makes a part of the job for each row.

    Raises:
        ParameterError: there are none, which SQL has no words for.
    """

    rows: tuple[tuple[date | int, ...], ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise ParameterError("SQL needs one row at least")


Parameters = Mapping[str, str | int | Name | Rows]


def statements(file: str, parameters: Parameters) -> list[str]:
    """Return the statements of a file in `sql/`, with its parameters put in.

    Args:
        file: its name without the ending.
        parameters: a value for each `${name}` in the file, and no others.

    Raises:
        ParameterError: a parameter is missing, is not used, or holds a control character.
    """
    text = resources.files(__package__).joinpath("sql", f"{file}.sql").read_text(encoding="utf-8")
    return filled(text, parameters)


def filled(text: str, parameters: Parameters) -> list[str]:
    """Return the statements of a text, as `statements` does of a file's.

    >>> filled("DROP TABLE ${database}.t;", {"database": Name("market")})
    ['DROP TABLE `market`.t']
    >>> filled("SET 'pipeline.name' = ${name};", {"name": "it's mine"})
    ["SET 'pipeline.name' = 'it''s mine'"]
    >>> filled("VALUES ${rows};", {"rows": Rows(((date(2026, 1, 2), 7), (date(2026, 1, 3), 9)))})
    ["VALUES (DATE '2026-01-02', 7), (DATE '2026-01-03', 9)"]
    """
    template = string.Template(_COMMENT.sub("", text))
    named = set(template.get_identifiers())
    if named != set(parameters) or not template.is_valid():
        differ = sorted(named ^ set(parameters))
        raise ParameterError(f"the SQL has the parameters {sorted(named)}, which differ by {differ}")
    rendered = template.substitute({name: _literal(value) for name, value in parameters.items()})
    return [part.strip() for part in _END.split(rendered) if part.strip()]


def _literal(value: str | int | Name | Rows) -> str:
    if isinstance(value, Name):
        return f"`{value.text}`"
    if isinstance(value, Rows):
        return ", ".join("(" + ", ".join(map(_field, row)) + ")" for row in value.rows)
    text = str(value)
    if not text.isprintable():
        raise ParameterError(f"{text[:60]!r} can't be put into SQL: it has control characters")
    return "'" + text.replace("'", "''") + "'"


def _field(value: date | int) -> str:
    return f"DATE '{value.isoformat()}'" if isinstance(value, date) else str(int(value))
