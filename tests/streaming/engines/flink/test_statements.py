"""Parameters of the SQL files: put in as literals that can't be anything else."""

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.engines.flink.statements import Name, ParameterError, Rows, filled, statements


def test_a_file_is_taken_apart_at_its_statements_and_a_statement_set_stays_whole() -> None:
    names = ("namespace", "fluss_database")
    values = ("job_name", "parallelism", "checkpoint_interval", "candles_known_for")
    made = statements("streaming", {**dict.fromkeys(names, Name("market")), **dict.fromkeys(values, "1 s")})
    assert made[-1].startswith("EXECUTE STATEMENT SET BEGIN")
    assert made[-1].endswith("END")
    assert made[-1].count("INSERT INTO") == 4
    before = ("SET ", "CREATE TEMPORARY FUNCTION ", "CREATE TEMPORARY VIEW ")
    assert all(one.startswith(before) for one in made[:-1])
    assert not any("${" in one or "--" in one for one in made)


@given(st.text().filter(str.isprintable))
def test_whatever_a_value_holds_it_is_one_literal(value: str) -> None:
    [made] = filled("SET 'x' = ${value};", {"value": value})
    literal = made.removeprefix("SET 'x' = ")
    assert literal[0] == literal[-1] == "'"
    assert "'" not in literal[1:-1].replace("''", "")
    assert literal[1:-1].replace("''", "'") == value


@pytest.mark.parametrize("value", ["a\nb", ";\n\nDROP TABLE t", "\0", "a\x1b"])
def test_control_characters_are_refused(value: str) -> None:
    with pytest.raises(ParameterError, match="control characters"):
        filled("SET 'x' = ${value};", {"value": value})


@pytest.mark.parametrize("name", ["", "a`b", "a.b", "1a", "a b", "ä", "x" * 65])
def test_names_that_could_be_something_else_are_refused(name: str) -> None:
    with pytest.raises(ParameterError, match="no name for SQL"):
        Name(name)


@given(st.lists(st.tuples(st.dates(), st.integers(0, 2**63 - 1)), min_size=1))
def test_rows_are_plain_literals(rows: list[tuple[date, int]]) -> None:
    [made] = filled("VALUES ${rows};", {"rows": Rows(tuple(rows))})
    read = re.findall(r"\(DATE '(\d{4}-\d\d-\d\d)', (\d+)\)", made)
    assert [(date.fromisoformat(day), int(number)) for day, number in read] == rows
    assert re.sub(r"DATE '[\d-]+'", "", made).translate(str.maketrans("", "", "0123456789(), ")) == "VALUES"


def test_no_rows_are_refused() -> None:
    with pytest.raises(ParameterError, match="one row"):
        Rows(())


@pytest.mark.parametrize("given_values", [{}, {"a": "1"}, {"a": "1", "b": "2", "c": "3"}])
def test_missing_and_unused_parameters_are_refused(given_values: dict[str, str]) -> None:
    with pytest.raises(ParameterError, match="differ"):
        filled("SELECT ${a}, ${b};", given_values)
