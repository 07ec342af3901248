"""Recordings: what is written is read, and what is damaged is said in one sentence."""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.market.trade import Exchange
from streaming.exchanges.recording import Recording, RecordingError, RecordingWriter

LINE = b'{"received_us":1,"exchange":"coinbase","frame":"{}"}\n'


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    frames: list[tuple[str | bytes, int]] = [
        ('{"type":"match"}', 5), ("\x00é\n\r\u2028\x85", 6), (b"\xff\x00", 7), ("x" * 3_000_000, 8), ("", 9),
    ]  # fmt: skip
    with RecordingWriter(tmp_path / name, Exchange.SIMULATED) as writer:
        for frame in frames:
            writer.write(*frame)
            writer.flush()
    recording = Recording(tmp_path / name)
    assert recording.exchange is Exchange.SIMULATED
    assert list(recording.frames()) == frames
    assert len(recording.sha256()) == 64


@given(st.lists(st.tuples(st.text() | st.binary(), st.integers(0, 2**53)), min_size=1, max_size=20))
def test_any_frames_survive(frames: list[tuple[str | bytes, int]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "any.jsonl.zst"
        with RecordingWriter(path, Exchange.COINBASE) as writer:
            for frame in frames:
                writer.write(*frame)
        assert list(Recording(path).frames()) == frames


def test_a_recorder_that_was_killed_leaves_a_readable_file(tmp_path: Path) -> None:
    path = tmp_path / "killed.jsonl.zst"
    writer = RecordingWriter(path, Exchange.COINBASE)
    sizes = []
    for number in range(20):
        for i in range(50):
            writer.write(json.dumps({"n": number, "noise": os.urandom(20).hex()}), number * 50 + i)
        writer.flush()
        sizes.append(path.stat().st_size)
    whole = path.read_bytes()
    for cut in (sizes[3], sizes[3] + 5, sizes[3] + 40, sizes[10] - 1):
        path.write_bytes(whole[:cut])
        frames = list(Recording(path).frames())
        complete = sum(size <= cut for size in sizes)
        assert len(frames) >= complete * 50
        assert [received_us for _, received_us in frames] == list(range(len(frames)))


def test_lines_from_elsewhere_are_read(tmp_path: Path) -> None:
    """Written by other tools: other key order, CRLF, blank lines, lone surrogates, no newline at the end."""
    lines = [
        json.dumps({"frame": "é{}", "exchange": "binance", "received_us": 1, "more": [1]}).encode() + b"\r\n",
        b"\n",
        json.dumps({"received_us": 2, "exchange": "binance", "frame": "a\udcffb"}).encode() + b"\n",
        json.dumps({"received_us": 3, "exchange": "binance", "frame": "last"}).encode(),
    ]
    path = tmp_path / "other.jsonl"
    path.write_bytes(b"".join(lines))
    assert list(Recording(path).frames()) == [("é{}", 1), (b"a\xed\xb3\xbfb", 2), ("last", 3)]
    with (
        (tmp_path / "one-frame.zst").open("wb") as file,
        zstandard.ZstdCompressor().stream_writer(file) as out,
    ):
        out.write(b"".join(lines))
    assert len(list(Recording(tmp_path / "one-frame.zst").frames())) == 3


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"not json\n" + LINE, "line 1 .* is damaged"),
        (LINE + b"{}\n" + LINE, "line 2 .* is damaged"),
        (LINE + b'{"received_us":"1","exchange":"coinbase","frame":"{}"}\n', "line 2 .* is damaged"),
        (LINE + b'{"received_us":-1,"exchange":"coinbase","frame":"{}"}\n', "received_us is -1"),
        (LINE + b'{"received_us":1,"exchange":"coinbase","frame":{}}\n', "line 2 .* is damaged"),
        (LINE + b'{"received_us":1,"exchange":"coinbase","frame_base64":"?"}\n', "frame_base64"),
        (LINE + b'{"received_us":1,"exchange":"binance","frame":"{}"}\n', "the first from 'coinbase'"),
        (b'{"received_us":1,"exchange":"mtgox","frame":"{}"}\n', "'mtgox' is none of"),
        (LINE + LINE[:20] + b"\n" + LINE, "line 2 .* is damaged"),
        (LINE + b"[" * 100_000 + b"\n", "line 2 .* is damaged"),
        (b"\x28\xb5\x2f\xfd" + b"\x00\xff" * 50, "is damaged"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_damage_is_said_in_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "damaged.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=sentence) as caught:
        list(Recording(path).frames())
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 400


def test_a_missing_file_and_an_existing_one(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="can't be opened"):
        Recording(tmp_path / "none.jsonl")
    (tmp_path / "there.jsonl").write_bytes(LINE)
    with pytest.raises(RecordingError, match="exists already"):
        RecordingWriter(tmp_path / "there.jsonl", Exchange.COINBASE)
