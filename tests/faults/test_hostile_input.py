"""Hostile input at every door, from end to end: quarantine with a reason, or a clear refusal.

At the doors: the exchange's socket, a recording, the settings, `lakehouse sql`. Nothing may be written
outside LAKEHOUSE_HOME.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_exchange import hostile_exchange
from running_workers import STAGES, wait_until, workers
from structlog.testing import capture_logs

from lakehouse import logs
from lakehouse.home import Home
from lakehouse.market.quarantine import Reason
from lakehouse.market.time import now_us, to_iso
from lakehouse.market.trade import Exchange
from lakehouse.stores import prompt, sql
from streaming.exchanges.recording import RecordingWriter
from streaming.workers import drain

NOW = now_us()
Frame = str | bytes


def match(trade_id: object = 1_000, **fields: object) -> dict[str, Any]:
    message = {"type": "match", "trade_id": trade_id, "side": "sell", "size": "0.5", "price": "60000.25"}
    return message | {"product_id": "BTC-USD", "sequence": 1, "time": to_iso(NOW)} | fields


def text(message: object) -> str:
    return json.dumps(message, separators=(",", ":"))


def raw(field: str, value: str) -> str:
    """A match in which a field has this value as it stands, quoted or not."""
    message = match(**{field: "HERE"})
    return text(message).replace('"HERE"', value)


HOSTILE_NAMES = [
    *(
        "../../../etc/passwd",
        "..",
        "BTC-USD/../../x",
        "BTC-USD'; DROP TABLE trades; --",
        'BTC-USD"',
        "BTC-USD\x00",
    ),
    *("A" * 10_000, "", "btc-usd", "ВТС-USD", "BTC-USD\n", "%s%n", "${HOME}", "day=2026-01-01"),
]
BAD_NUMBERS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "-1",
    "-0.00000001",
    "0",
    "0.0",
    "1e-9",
    "99999999999",
]

FRAMES: list[tuple[Frame, Reason]] = [
    *((text(match(product_id=name)), Reason.UNKNOWN_PRODUCT) for name in HOSTILE_NAMES),
    (text(match(product_id="DOGE-USD")), Reason.UNKNOWN_PRODUCT),
    *(
        (raw(field, f'"{number}"'), Reason.BAD_NUMBER)
        for field in ("price", "size")
        for number in BAD_NUMBERS
    ),
    (raw("price", "NaN"), Reason.BAD_NUMBER),
    (raw("price", "1e400"), Reason.BAD_NUMBER),
    (raw("price", "60000.25"), Reason.WRONG_SHAPE),
    (raw("trade_id", "-5"), Reason.BAD_ID),
    (raw("trade_id", "9223372036854775808"), Reason.BAD_ID),
    (raw("trade_id", "1.5"), Reason.BAD_ID),
    (text(match(price="9999999999", size="9999999999")), Reason.BAD_NUMBER),
    (text(match(time="1970-01-01T00:00:00Z")), Reason.BAD_TIME),
    (text(match(time="2200-01-01T00:00:00Z")), Reason.BAD_TIME),
    (text(match(time="2008-12-31T23:59:59Z")), Reason.BAD_TIME),
    (text(match(time="2026-13-01T00:00:00Z")), Reason.BAD_TIME),
    (text(match())[:-1] + ',"price":"1"}', Reason.WRONG_SHAPE),
    ('{"type":"match",' + text(match())[1:], Reason.WRONG_SHAPE),
    ("[" * 100_000 + "]" * 100_000, Reason.WRONG_SHAPE),
    ('{"a":' * 50_000 + "1" + "}" * 50_000, Reason.WRONG_SHAPE),
    (raw("price", "[" * 5_000 + "]" * 5_000), Reason.WRONG_SHAPE),
    (b"\x00\x01\x02\x03", Reason.NOT_TEXT),
    (text(match()).encode(), Reason.NOT_TEXT),
    (b"\xff\xfe" * 100, Reason.NOT_TEXT),
    ("x" * 10_000_000, Reason.NOT_JSON),
    (text(match(price="9" * 10_000_000)), Reason.BAD_NUMBER),
    ("", Reason.NOT_JSON),
    ("\x00", Reason.NOT_JSON),
]
GOOD = [text(match(trade_id)) for trade_id in range(1, 6)]


def as_bytes(frame: Frame) -> bytes:
    return frame.encode("utf-8", "surrogatepass") if isinstance(frame, str) else frame


def check_tables(home: Home) -> None:
    """Each hostile frame is in quarantine, whole and with its reason; the good trades are in the archive."""
    with sql.connect(home) as tables:
        refused = tables.execute("SELECT frame, reason, detail FROM quarantine").fetchall()
        trades = tables.execute("SELECT product, trade_id FROM trades ORDER BY 1, 2").fetchall()
        folders = tables.execute("SELECT DISTINCT product FROM quarantine ORDER BY 1").fetchall()
    expected = Counter((as_bytes(frame), str(reason)) for frame, reason in FRAMES)
    found = Counter((frame, reason) for frame, reason, _ in refused)
    surplus = [(frame[:80], reason) for frame, reason in found - expected]
    absent = [(frame[:80], reason) for frame, reason in expected - found]
    assert not surplus
    assert not absent
    assert all(0 < len(detail) < 300 for _, _, detail in refused)
    assert trades == [("BTC-USD", trade_id) for trade_id in range(1, 6)]
    assert {product for (product,) in folders} <= {"", "BTC-USD", "DOGE-USD"}


def check_nothing_else_written(folder: Path, allowed: set[str]) -> None:
    """Only the home and the tests' own files are there."""
    assert {path.name for path in folder.iterdir()} <= allowed
    for path in (folder / "home").rglob("*"):
        assert path.resolve().is_relative_to((folder / "home").resolve())
        assert not {"DROP", "etc", "passwd", "DOGE"} & set(path.name.split("-"))


LOGS = {"home", "feed.log", "hot.log", "archive.log", "candles.log", "drain.log", "hostile.jsonl.zst"}


def test_hostile_frames_from_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    with (
        hostile_exchange([*GOOD[:3], *(frame for frame, _ in FRAMES), *GOOD[3:]]) as exchange,
        workers(
            folder,
            "market",
            feed="coinbase",
            products="BTC-USD",
            commit_interval_ms=100,
            coinbase_websocket_url=exchange.websocket_url,
            coinbase_rest_url=exchange.rest_url,
        ) as platform,
    ):
        for name in ("feed", *STAGES):
            platform.start(name)
        wait_until(
            lambda: (
                (platform.metric("feed", "lakehouse_feed_received_total") or 0) >= len(FRAMES) + len(GOOD)
            ),
            60,
            f"all frames\n{platform.log('feed')}",
        )
        platform.stop_when_all_is_committed()
        assert exchange.connections == 1
        check_tables(platform.home)
    check_nothing_else_written(folder, LOGS)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_hostile_frames_from_a_recording(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / "hostile.jsonl.zst"
    with RecordingWriter(path, Exchange.COINBASE) as writer:
        for frame in [*GOOD[:3], *(frame for frame, _ in FRAMES), *GOOD[3:]]:
            writer.write(frame, NOW)
    with workers(folder, "market", feed=f"recording:{path}", products="BTC-USD") as platform:
        process = platform.start("drain")
        assert process.wait(120) == 0, platform.log("drain")
        summary = json.loads(platform.log("drain").strip().splitlines()[-1])
        assert summary["received"] == len(FRAMES) + len(GOOD)
        assert summary["quarantined"] == len(FRAMES)
        check_tables(platform.home)
    check_nothing_else_written(folder, LOGS)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


class Door:
    """A command as its process runs it, in this process: two seconds of imports less for each case."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, output: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._patch = patch
        self._output = output

    def stream(self, recording: Path | str) -> tuple[int, str, str]:
        """Run `lakehouse stream --drain` on a recording; return exit code, stdout and stderr."""
        self._patch.setenv("LAKEHOUSE_FEED", f"recording:{recording}")
        return self._run(drain.main)

    def sql(self, *arguments: str) -> tuple[int, str, str]:
        """Run `lakehouse sql`; return exit code, stdout and stderr."""
        self._patch.setattr(sys, "argv", ["lakehouse", *arguments])
        return self._run(prompt.main)

    def setting(self, name: str, value: str) -> None:
        self._patch.setenv(f"LAKEHOUSE_{name}", value)

    def _run(self, main: Callable[[], int]) -> tuple[int, str, str]:
        self._output.readouterr()
        code = main()
        return code, *self._output.readouterr()


@pytest.fixture
def door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Door]:
    # The process's own log must not be set up in this one, where other tests log too.
    monkeypatch.setattr(logs, "configure", lambda worker: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAKEHOUSE_HOME", str(tmp_path / "home"))
    with capture_logs():
        yield Door(tmp_path, monkeypatch, capsys)


def check_refused(done: tuple[int, str, str], complaint: str) -> None:
    """It says what is wrong in a few words a person can act on, and nothing of the program's inside."""
    code, output, errors = done
    assert code == 1
    assert output == ""
    assert complaint in errors, errors[-2000:]
    assert "Traceback" not in errors
    assert len(errors) < 2_000


LINE = '{"received_us":1795000000000000,"exchange":"coinbase","frame":"{}"}\n'


HOSTILE_STATEMENTS = [
    "COPY (SELECT 1) TO 'stolen.csv'",
    "SELECT 1; COPY trades TO '../stolen.csv'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM 'good.jsonl'",
    "SET enable_external_access = true",
    "ATTACH 'stolen.db'",
    "INSTALL httpfs",
    "DELETE FROM trades",
    f'SELECT * FROM "{"A" * 1_000}"',
    "SELECT " + "(" * 500,
    "",
]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"\x28\xb5\x2f\xfdgarbage", "is damaged"),
        (b"\x00\xff\n" * 3, "line 1"),
        (b"[" * 100_000 + b"\n", "line 1"),
        (LINE.replace("coinbase", "../../etc").encode(), "none of simulated, coinbase, binance"),
        (LINE.replace("1795000000000000", "-1").encode(), "received_us"),
        (LINE.replace("1795000000000000", "1e400").encode(), "line 1"),
        ((LINE + LINE.replace("coinbase", "binance")).encode(), "line 2"),
    ],
    ids=[
        "empty",
        "no-zstd",
        "binary",
        "nested",
        "exchange",
        "negative-clock",
        "infinite-clock",
        "two-exchanges",
    ],
)
def test_damaged_recordings_are_refused_at_the_door(door: Door, content: bytes, complaint: str) -> None:
    path = door.folder / "hostile.jsonl"
    path.write_bytes(content)
    check_refused(door.stream(path), complaint)
    assert {path.name for path in door.folder.iterdir()} <= {"home", "hostile.jsonl"}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("PRODUCTS", "../../etc/passwd"),
        ("PRODUCTS", "BTC-USD,'; DROP TABLE trades; --"),
        ("PRODUCTS", "A" * 10_000),
        ("PRODUCTS", "BTC-USD,BTC-USD"),
        ("SIMULATED_RATE", "NaN"),
        ("SIMULATED_SPEED", "1e400"),
        ("COMMIT_INTERVAL_MS", "-1"),
        ("FEED", "recording:"),
    ],
    ids=lambda value: value[:20],
)
def test_hostile_settings_are_refused_at_the_door(door: Door, setting: str, value: str) -> None:
    door.setting(setting, value)
    check_refused(door.stream("" if setting == "FEED" else "none.jsonl"), f"LAKEHOUSE_{setting}")
    assert list(door.folder.iterdir()) == []


def test_a_nul_in_the_settings_file_is_refused(door: Door) -> None:
    (door.folder / ".env").write_bytes(b"LAKEHOUSE_PRODUCTS=BTC-USD\x00../..\n")
    check_refused(door.stream("none.jsonl"), "LAKEHOUSE_PRODUCTS")
    assert [path.name for path in door.folder.iterdir()] == [".env"]


def test_the_sql_door(door: Door) -> None:
    """Statements that would read or write elsewhere are refused, and nothing is written by asking."""
    path = door.folder / "good.jsonl"
    with RecordingWriter(path, Exchange.COINBASE) as writer:
        for frame in GOOD:
            writer.write(frame, NOW)
    code, _, errors = door.stream(path)
    assert code == 0, errors
    before = {path for path in door.folder.rglob("*") if path.is_file()}
    for statement in HOSTILE_STATEMENTS:
        check_refused(door.sql(statement), "lakehouse sql: ")
    assert {path for path in door.folder.rglob("*") if path.is_file()} == before

    names = ", ".join(f"'{name}'" for name in HOSTILE_NAMES if "'" not in name and "\x00" not in name)
    code, output, errors = door.sql(
        "--format", "csv", f"SELECT count(*) FROM trades WHERE product IN ({names})"
    )
    assert (code, output.split()) == (0, ["count_star()", "0"]), errors
