"""Flink's REST interfaces: one request at a time, with a time-out, and errors as ours."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx

from streaming.engines.flink.errors import FlinkError, FlinkTimeoutError, FlinkUnavailableError, root_cause

_STARTING: Final = (502, 503, 504)
"""What Flink answers while it looks for its leader."""

_SHORTEST_SECONDS: Final = 1.0


class NotThereError(FlinkError):
    """What was asked for isn't there (any more)."""


class RefusedError(FlinkError):
    """The server answered with an error; the text is its root cause."""


class RestClient:
    """A connection to one of Flink's two servers. Use it as a context manager.

    Args:
        name: what to call the server in a sentence.
        url: its address.
        setting: the setting that holds the address.
        timeout_seconds: longest wait for one answer.
        secrets: texts that no error may repeat.
    """

    def __init__(
        self, name: str, url: str, setting: str, timeout_seconds: float, secrets: tuple[str, ...] = ()
    ) -> None:
        self._name = name
        self._url = url
        self._setting = setting
        self._timeout = max(timeout_seconds, _SHORTEST_SECONDS)
        self._secrets = secrets
        try:
            self._client = httpx.Client(base_url=url, timeout=self._timeout, trust_env=False)
        except (httpx.InvalidURL, ValueError):
            raise self._not_an_address() from None

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """Send a request and return the answer: an object or a list, out of JSON.

        Raises:
            FlinkTimeoutError: no answer in time; what was asked may still happen.
            FlinkUnavailableError: nothing answers there, or it isn't ready.
            NotThereError: it doesn't know what the path names.
            RefusedError: it refused.
        """
        try:
            response = self._client.request(method, path, json=body)
        except httpx.TimeoutException:
            raise FlinkTimeoutError(
                f"{self._name} at {self._url} gave no answer within {self._timeout:g} s: is it overloaded or "
                "hanging? (`lakehouse cluster status`)"
            ) from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL):
            raise self._not_an_address() from None
        except httpx.HTTPError as error:
            raise FlinkUnavailableError(
                f"{self._name} at {self._url} can't be reached ({self._scrubbed(str(error))}): start it with "
                f"`lakehouse cluster up`, or correct {self._setting}"
            ) from None
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if response.status_code in _STARTING:
            raise FlinkUnavailableError(f"{self._name} at {self._url} isn't ready yet: try again")
        if response.is_success and isinstance(answer, dict | list):
            return answer
        if not isinstance(answer, dict):
            raise FlinkError(
                f"what answers at {self._url} isn't {self._name} (status {response.status_code}): correct "
                f"{self._setting}"
            )
        cause = self._scrubbed(_cause(answer))
        if response.status_code == httpx.codes.NOT_FOUND:
            raise NotThereError(f"{self._name} at {self._url} doesn't have {path}: {cause}")
        raise RefusedError(cause)

    def _not_an_address(self) -> FlinkError:
        return FlinkError(f"{self._url!r} is no address: set {self._setting} to http://host:port")

    def _scrubbed(self, text: str) -> str:
        return root_cause(text, self._secrets)


def _cause(answer: Mapping[str, Any]) -> str:
    """Return the stack traces of an error's answer as one text; the last holds the cause."""
    errors = answer.get("errors")
    return "\n".join(map(str, errors)) if isinstance(errors, list) else str(errors or answer)
