"""An Iggy server for a benchmark or a test: started from a given program, killed, paused, started again.

It is in no package registry, so its program is given by a variable, or the address of one that runs.
"""

import os
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.free_ports import free_ports
from lakehouse.settings import Settings, load_settings
from streaming.spine.contract import SpineUnavailableError
from streaming.spine.iggy_connection import IggyConnection

BINARY = "LAKEHOUSE_TEST_IGGY_BINARY"
ADDRESS = "LAKEHOUSE_TEST_IGGY_ADDRESS"

USERNAME = PASSWORD = "iggy"
"""What a server at `LAKEHOUSE_TEST_IGGY_ADDRESS` has to let in."""


class IggyServer:
    """One server in a folder of its own, on a free port of the loopback address."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary = binary
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"127.0.0.1:{free_ports(1)[0]}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("IGGY_")}
        environment |= {
            "IGGY_TCP_ADDRESS": self.address,
            "IGGY_NODE_ADVERTISED_ADDRESS": "127.0.0.1",
            "IGGY_HTTP_ENABLED": "false",
            "IGGY_QUIC_ENABLED": "false",
            "IGGY_WEBSOCKET_ENABLED": "false",
            "IGGY_ROOT_USERNAME": USERNAME,
            "IGGY_ROOT_PASSWORD": PASSWORD,
        }
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary], cwd=self._folder, env=environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        connection = IggyConnection(iggy_settings(self.address, iggy_timeout_seconds=5))
        while True:
            try:
                connection.ask(lambda client: client.ping())
            except SpineUnavailableError:
                told = (self._folder / "server.log").read_text(errors="replace")[-2000:]
                assert self._process.poll() is None, f"Iggy's server ended: {told}"
                assert time.monotonic() < deadline, f"Iggy's server doesn't answer: {told}"
                time.sleep(0.02)
            else:
                connection.close()
                return

    def kill(self) -> None:
        """kill -9."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def stop(self) -> None:
        """Let it end by itself."""
        self._signal(signal.SIGTERM)
        assert self._process is not None
        self._process.wait(30)

    def pause(self) -> None:
        """Make it hang."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def iggy_values(address: str, **others: Any) -> dict[str, Any]:
    """Return settings that choose a test's server, as JSON could hold them.

    Servers from before 0.9 can't make persisted topics; on one that can, the topics are persisted anyway.
    """
    return {
        "home": os.devnull,
        "spine": "iggy",
        "iggy_address": address,
        "iggy_username": USERNAME,
        "iggy_password": PASSWORD,
        "iggy_allow_weak_topics": True,
        **others,
    }


def iggy_settings(address: str, **others: Any) -> Settings:
    """Return `iggy_values` as settings."""
    return load_settings(**iggy_values(address, **others))
