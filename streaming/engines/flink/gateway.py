"""A client of Flink's SQL gateway: statements in, rows or a job's id out.

The gateway's JSON makes floats of decimals: cast them to STRING in the statement. A job that a statement has
submitted goes on without the gateway; follow it with `JobManager`.
"""

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from streaming.engines.flink.errors import FlinkError, FlinkTimeoutError, SessionLostError, StatementError
from streaming.engines.flink.rest import NotThereError, RefusedError, RestClient

_API: Final = "/v2"
_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 0.5
_ENDED: Final = ("FINISHED", "ERROR", "CANCELED", "CLOSED", "TIMEOUT")


@dataclass(frozen=True)
class StatementResult:
    """What a statement returned; `job_id` is that of the job it submitted, None where it submitted none."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    job_id: str | None


class GatewaySession:
    """One session: its settings, catalogs and views live until it is closed. Use it as a context manager.

    Args:
        url: the gateway's address.
        timeout_seconds: longest wait for one answer of the gateway.
        secrets: texts that no error may repeat, such as a catalog's password.

    Raises:
        FlinkUnavailableError: nothing answers there.
    """

    def __init__(self, url: str, *, timeout_seconds: float, secrets: Iterable[str] = ()) -> None:
        self._rest = RestClient(
            "Flink's SQL gateway", url, "LAKEHOUSE_FLINK_GATEWAY_URL", timeout_seconds, tuple(secrets)
        )
        try:
            self._path = f"{_API}/sessions/{self._ask('POST', f'{_API}/sessions', {})['sessionHandle']}"
        except BaseException:
            self._rest.close()
            raise

    def close(self) -> None:
        """Close the session; what it submitted goes on. A gateway that is gone has none to close."""
        with suppress(FlinkError):
            self._rest.ask("DELETE", self._path)
        self._rest.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run_all(self, statements: Iterable[str], *, timeout_seconds: float) -> StatementResult:
        """Run statements one after the other and return the last one's result; see `run`."""
        result = StatementResult((), (), None)
        for statement in statements:
            result = self.run(statement, timeout_seconds=timeout_seconds)
        return result

    def run(self, statement: str, *, timeout_seconds: float) -> StatementResult:
        """Run one statement and return all it returns.

        An INSERT returns as soon as its job is submitted.

        Args:
            statement: one statement, without `;`.
            timeout_seconds: how long it may take; then it is cancelled.

        Raises:
            StatementError: the statement is wrong or failed.
            FlinkTimeoutError: it took too long; what it submits may still appear.
            SessionLostError: the gateway was started anew.
            FlinkUnavailableError: the gateway went away; what it submits may still appear.
        """
        deadline = time.monotonic() + timeout_seconds
        try:
            handle = self._ask("POST", f"{self._path}/statements", {"statement": statement})[
                "operationHandle"
            ]
            operation = f"{self._path}/operations/{handle}"
            self._wait(operation, statement, deadline)
            return self._result(operation, statement, deadline)
        except RefusedError as error:
            raise StatementError(f"Flink refused {_beginning(statement)}: {error}") from None

    def _wait(self, operation: str, statement: str, deadline: float) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while self._ask("GET", f"{operation}/status")["status"] not in _ENDED:
            if time.monotonic() > deadline:
                self._cancel(operation, statement)
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _result(self, operation: str, statement: str, deadline: float) -> StatementResult:
        columns: tuple[str, ...] = ()
        rows: list[tuple[Any, ...]] = []
        job_id: str | None = None
        path: str | None = f"{operation}/result/0?rowFormat=JSON"
        while path:
            page = self._ask("GET", path)
            job_id = job_id or page.get("jobID")
            if page["resultType"] == "NOT_READY":
                if time.monotonic() > deadline:
                    self._cancel(operation, statement)
                time.sleep(_FIRST_PAUSE_SECONDS)
                continue
            results = page["results"]
            columns = columns or tuple(column["name"] for column in results["columns"])
            rows += [tuple(row["fields"]) for row in results["data"]]
            path = page.get("nextResultUri") if page["resultType"] == "PAYLOAD" else None
        return StatementResult(columns, tuple(rows), job_id)

    def _cancel(self, operation: str, statement: str) -> None:
        with suppress(FlinkError):
            self._rest.ask("POST", f"{operation}/cancel")
        raise FlinkTimeoutError(f"Flink did not end {_beginning(statement)} in time: is it overloaded?")

    def _ask(self, method: str, path: str, body: dict[str, object] | None = None) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._rest.ask(method, path, body)
        except NotThereError as error:
            raise SessionLostError(f"the session is gone ({error}): open another one") from None
        except RefusedError as error:
            # The gateway says so with status 500.
            if "Session" in str(error) and "does not exist" in str(error):
                raise SessionLostError(f"the session is gone ({error}): open another one") from None
            raise
        return answer


def _beginning(statement: str) -> str:
    """Return what a statement does, without its values: a secret may be among them."""
    words = " ".join(statement.split()).split("(")[0].split("'")[0].strip()
    return words if len(words) <= 60 else words[:60] + "…"
