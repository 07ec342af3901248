"""The real recording of Binance that tests use where it is present, in the format of `lakehouse record`."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import zstandard


def raw_frames(market_data: Path) -> Iterator[tuple[int, str]]:
    """The receiver's clock in ns and the frame, as the recorder wrote them."""
    with gzip.open(market_data / "binance-spot-btcusdt" / "btcusdt_20240808.gz", "rt") as lines:
        for line in lines:
            clock, frame = line.split(" ", 1)
            if frame.strip():
                yield int(clock), frame.strip()


def write_recording(market_data: Path, path: Path) -> None:
    """Write the frames to `path` as a recording."""
    with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as writer:
        for clock, frame in raw_frames(market_data):
            line = {"received_us": clock // 1000, "exchange": "binance", "frame": frame}
            writer.write(json.dumps(line).encode() + b"\n")
