"""Recordings: raw frames with the receiver's clock, one JSON object a line, compressed with zstd or plain.

    {"received_us": 1723161253937085, "exchange": "binance", "frame": "{\\"stream\\": …}"}

A frame that is no text is kept as `frame_base64` instead of `frame`. A recording is written as one zstd
frame after another, so that it can be read up to its last flush whatever ended the recorder.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import msgspec
import structlog
import zstandard

from lakehouse.market.trade import Exchange

MAX_LINE: Final = 192 * 2**20
"""Longest line in bytes: the longest WebSocket message, with its escapes."""

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"

log = structlog.get_logger()


class RecordingError(Exception):
    """A recording can't be read or written; the text names the file, the line, and what is wrong."""


Received = tuple[str | bytes, int]
"""A frame and when it came, by the receiver's clock in µs UTC. Bytes are a frame that is no text."""


class _Line(msgspec.Struct):
    received_us: int
    exchange: str
    frame: str | None = None
    frame_base64: str | None = None


_decode = msgspec.json.Decoder(_Line).decode
_encode = msgspec.json.Encoder().encode


class Recording:
    """A recording to be read; `exchange` is the one all of its lines are from.

    Raises:
        RecordingError: it can't be opened, or its first line can't be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        for line in self._lines():
            self.exchange = self._exchange(line, 1)
            return
        raise RecordingError(f"the recording {path} is empty: there is nothing to read in it")

    def sha256(self) -> str:
        """Return the file's checksum, which is what makes it the same recording."""
        with self._open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def frames(self) -> Iterator[Received]:
        """Yield the frames in order.

        A last line that was cut off ends the recording with a warning: the recorder was killed.

        Raises:
            RecordingError: a line is damaged or from another exchange.
        """
        number = 0
        name = self.exchange.name.lower()
        for number, line in enumerate(self._lines(), start=1):
            try:
                read = _decode(line)
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                if not line.endswith(b"\n"):
                    log.warning("the recording ends inside a line", path=str(self.path), line=number)
                    return
                read = self._unusual(line, number)
            if read.exchange != name:
                self._exchange(line, number)
                raise RecordingError(
                    f"line {number} of {self.path} is from {read.exchange[:40]!r}, the first from {name!r}: "
                    "record each exchange in a file of its own"
                )
            yield self._frame(read, number), read.received_us

    def _frame(self, line: _Line, number: int) -> str | bytes:
        if not 0 <= line.received_us < 2**62:
            raise self._damaged(number, f"received_us is {line.received_us}")
        if line.frame is not None:
            return line.frame
        try:
            return base64.b64decode(line.frame_base64 or "", validate=True)
        except (binascii.Error, ValueError) as error:
            raise self._damaged(number, f"frame_base64: {error}") from None

    def _unusual(self, line: bytes, number: int) -> _Line:
        """Read a line whose frame holds lone surrogates, which are JSON but no text."""
        try:
            fields = json.loads(line)
            read = msgspec.convert({**fields, "frame": None}, _Line)
            raw = fields["frame"].encode("utf-8", "surrogatepass")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise self._damaged(number, str(error)[:120]) from None
        return msgspec.structs.replace(read, frame_base64=base64.b64encode(raw).decode())

    def _exchange(self, line: bytes, number: int) -> Exchange:
        try:
            name = msgspec.json.decode(line)["exchange"]
        except (msgspec.MsgspecError, ValueError, TypeError, KeyError, RecursionError):
            try:
                name = self._unusual(line, number).exchange
            except RecordingError as error:
                raise RecordingError(
                    f'{error}; a line is {{"received_us": …, "exchange": "coinbase", "frame": "…"}}'
                ) from None
        try:
            return Exchange[str(name).upper()]
        except KeyError:
            raise self._damaged(
                number, f"the exchange {str(name)[:40]!r} is none of simulated, coinbase, binance"
            ) from None

    def _damaged(self, number: int, why: str) -> RecordingError:
        return RecordingError(f"line {number} of {self.path} is damaged: {why}")

    def _lines(self) -> Iterator[bytes]:
        with self._open() as file:
            compressed = file.read(4) == _ZSTD_MAGIC
            file.seek(0)
            source: BinaryIO = file
            if compressed:
                source = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            rest = b""
            try:
                while chunk := source.read(2**20):
                    lines = (rest + chunk).splitlines(keepends=True) if b"\n" in chunk else [rest + chunk]
                    rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
                    if len(rest) > MAX_LINE:
                        raise RecordingError(f"{self.path} has a line of more than {MAX_LINE} bytes")
                    yield from filter(bytes.strip, lines)
            except (zstandard.ZstdError, OSError) as error:
                raise RecordingError(f"the recording {self.path} is damaged: {error}") from error
            if rest.strip():
                yield rest

    def _open(self) -> BufferedReader:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise RecordingError(
                f"the recording {self.path} can't be opened ({error.strerror}): check the path"
            ) from None


class RecordingWriter:
    """Writes a new recording; compressed unless the name ends in `.jsonl`.

    What `flush` was called for survives kill -9.

    Raises:
        RecordingError: the file exists already or can't be made.
    """

    def __init__(self, path: Path, exchange: Exchange) -> None:
        self._exchange = exchange.name.lower()
        self._compressor = None if path.suffix == ".jsonl" else zstandard.ZstdCompressor(level=3)
        self._lines: list[bytes] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb")
        except FileExistsError:
            raise RecordingError(f"{path} exists already: choose another name for the recording") from None
        except OSError as error:
            raise RecordingError(f"the recording {path} can't be made: {error.strerror}") from None

    def write(self, frame: str | bytes, received_us: int) -> None:
        """Add a frame."""
        line: dict[str, object] = {"received_us": received_us, "exchange": self._exchange}
        if isinstance(frame, str):
            line["frame"] = frame
        else:
            line["frame_base64"] = base64.b64encode(frame).decode()
        self._lines.append(_encode(line) + b"\n")

    def flush(self) -> None:
        """Hand everything written to the operating system, as complete lines."""
        lines, self._lines = self._lines, []  # another thread may go on writing
        if not lines:
            return
        data = b"".join(lines)
        self._file.write(data if self._compressor is None else self._compressor.compress(data))
        self._file.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self.flush()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
