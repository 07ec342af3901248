"""What Flink refuses or fails with, each as one sentence that says what to do."""

import re
from collections.abc import Iterable

_CAUSE = re.compile(
    r"^(?:Caused by: )?((?:[\w$]+\.)+[\w$]*(?:Exception|Error|Throwable|Failure)[\w$]*)(?:: (.*))?$"
)
_LONGEST = 400


class FlinkError(Exception):
    """Flink refused something; the text says what to do."""


class FlinkUnavailableError(FlinkError):
    """Flink can't be reached or isn't ready: worth trying again."""


class FlinkTimeoutError(FlinkUnavailableError):
    """No answer came in time; what was asked may still happen."""


class StatementError(FlinkError):
    """A statement failed; the text has its root cause."""


class SessionLostError(FlinkUnavailableError):
    """The gateway doesn't know the session: it was started anew. Open another one."""


class JobFailedError(FlinkError):
    """A job failed or was cancelled; the text has its root cause."""


class StateLostError(FlinkError):
    """The archive holds rows of a job whose state is gone: starting anew would archive rows twice."""


def root_cause(trace: str, secrets: Iterable[str] = ()) -> str:
    """Return the innermost cause of a Java stack trace as one line, such as `TableException: no such table`.

    Args:
        trace: a stack trace as Flink's REST interfaces give it, or any text.
        secrets: texts that must not be repeated.
    """
    found = ""
    for line in trace.splitlines():
        match = _CAUSE.match(line.strip())
        if match is None:
            continue
        name, said = match.group(1).rpartition(".")[2], match.group(2)
        if said or not found:
            found = f"{name}: {said}" if said else name
    text = " ".join((found or trace).split())
    for secret in filter(None, secrets):
        text = text.replace(secret, "…")
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
