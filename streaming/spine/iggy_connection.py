"""One connection to an Iggy server: an event loop in a thread of its own, time-outs, and typed errors.

A connection answers one request after the other, in the order in which they were asked. A request whose
answer didn't come in time is therefore left alone and the connection kept: what is asked next waits behind
it and knows its outcome. Only a connection that broke is replaced, by the next request. The client's own
reconnecting is off: it stays disconnected for up to five seconds after a server's restart.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from datetime import timedelta
from typing import Final, TypeVar

import structlog
from apache_iggy import AutoLogin, IggyClient, TcpConfig, TcpReconnectionConfig

from lakehouse.client_threads import let_go_at_exit
from lakehouse.settings import Settings
from streaming.spine.contract import SpineError, SpineUnavailableError

_BROKEN: Final = (
    "Disconnected",
    "Cannot establish connection",
    "Not connected",
    "Connection closed",
    "Client shutdown",
    "Stale client",
    "TCP error",
    "Unauthenticated",
)
"""Beginnings of the client's texts after which a connection is of no use any more."""

_LAST_WORDS_SECONDS: Final = 0.2
"""Time the client's own threads get before their event loop ends."""

_T = TypeVar("_T")

_log = structlog.get_logger()


class IggyRefusedError(SpineUnavailableError):
    """The server answered a request with an error; `reason` is its text."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"Iggy at {address} refused a request ({reason}): its own log says more")
        self.reason = reason


class IggyConnection:
    """Asks an Iggy server, from any thread."""

    def __init__(self, settings: Settings) -> None:
        """Start the event loop; the server is connected to by the first request.

        Raises:
            SpineError: the address is none.
        """
        self.address = settings.iggy_address
        self._username = settings.iggy_username
        self._timeout = settings.iggy_timeout_seconds
        try:
            self._config = TcpConfig(
                server_address=settings.iggy_address,
                auto_login=AutoLogin.username_password(
                    settings.iggy_username, settings.iggy_password.get_secret_value()
                ),
                reconnection=TcpReconnectionConfig(enabled=False),
                heartbeat_interval=timedelta(seconds=5),
                nodelay=True,
            )
        except ValueError as error:
            raise SpineError(
                f"LAKEHOUSE_IGGY_ADDRESS: {settings.iggy_address!r} is not host:port ({error})"
            ) from None
        self._client: IggyClient | None = None
        self._connecting = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="iggy", daemon=True)
        self._thread.start()

    def ask(self, request: Callable[[IggyClient], Awaitable[_T]]) -> _T:
        """Send a request and wait for its answer.

        Args:
            request: calls one method of the client.

        Raises:
            IggyRefusedError: the server answered with an error.
            SpineUnavailableError: no server was reached, or none answered in time; the request may still be
                carried out, but before any that this connection is asked next.
            SpineError: the settings are wrong, or what was asked for is gone.
        """
        if self._loop.is_closed():
            raise SpineError("the log was closed")
        given_up = threading.Event()
        answer: Future[_T] = asyncio.run_coroutine_threadsafe(self._answer(request, given_up), self._loop)
        try:
            return answer.result(self._timeout)
        except TimeoutError:
            given_up.set()
            raise self._silent() from None
        except CancelledError:
            raise SpineError("the log was closed") from None

    def close(self) -> None:
        """Let go of the server; what is still unanswered is given up."""
        if self._loop.is_closed():
            return
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    async def _answer(self, request: Callable[[IggyClient], Awaitable[_T]], given_up: threading.Event) -> _T:
        async with self._connecting:
            client = self._client or await self._connected()
        if given_up.is_set():
            raise self._silent()  # to nobody: the caller must not find it done after all
        try:
            return await request(client)
        except RuntimeError as error:
            raise self._typed(error, client) from None

    async def _connected(self) -> IggyClient:
        let_go_at_exit()
        client = IggyClient(self._config)
        try:
            await asyncio.wait_for(client.connect(), self._timeout)
        except TimeoutError:
            raise self._silent() from None
        except RuntimeError as error:
            raise self._typed(error, client) from None
        self._client = client
        return client

    async def _end(self) -> None:
        current = asyncio.current_task()
        for task in asyncio.all_tasks():
            if task is not current:
                task.cancel()
        self._client = None
        await asyncio.sleep(_LAST_WORDS_SECONDS)

    def _silent(self) -> SpineUnavailableError:
        return SpineUnavailableError(
            f"no Iggy server answered at {self.address} within {self._timeout:g} s: wait for it, or look "
            "whether LAKEHOUSE_IGGY_ADDRESS is its TCP address"
        )

    def _typed(self, error: RuntimeError, client: IggyClient) -> SpineError:
        """Return what a text of the client means."""
        text = str(error)
        if text.startswith(_BROKEN):
            if self._client is client:
                self._client = None
                _log.warning("the connection to Iggy broke", address=self.address, problem=text)
            return SpineUnavailableError(
                f"no connection to Iggy at {self.address} ({text}): start the server, or set "
                "LAKEHOUSE_IGGY_ADDRESS to its TCP address"
            )
        if text.startswith(("Invalid credentials", "Invalid username", "Invalid password", "User inactive")):
            return SpineError(
                f"Iggy at {self.address} doesn't let the user {self._username!r} in: set "
                "LAKEHOUSE_IGGY_USERNAME and LAKEHOUSE_IGGY_PASSWORD to one of its users"
            )
        if text.startswith("Unauthorized"):
            return SpineError(
                f"the user {self._username!r} may not do this in Iggy at {self.address}: give it the "
                "permission to manage streams and topics, or set LAKEHOUSE_IGGY_USERNAME to one that has it"
            )
        if "not found" in text:
            return SpineError(
                f"Iggy at {self.address} lost a stream or a topic while it was in use ({text}): restore it, "
                "or start again with an empty LAKEHOUSE_HOME"
            )
        return IggyRefusedError(self.address, text)
