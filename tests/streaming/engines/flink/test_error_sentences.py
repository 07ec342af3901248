"""What Flink says when something is wrong, as one sentence: from servers that answer as Flink's do."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from streaming.engines.flink.errors import (
    FlinkError,
    FlinkTimeoutError,
    FlinkUnavailableError,
    SessionLostError,
    StatementError,
    root_cause,
)
from streaming.engines.flink.gateway import GatewaySession
from streaming.engines.flink.job_manager import JobManager

# As the gateway of Flink 1.20 answers.
TRACE = """org.apache.flink.table.gateway.service.utils.SqlExecutionException: Failed to execute 7e.
\tat org.apache.flink.table.gateway.service.operation.OperationManager.run(OperationManager.java:414)
\tat java.base/java.lang.Thread.run(Thread.java:840)
Caused by: org.apache.flink.table.api.ValidationException: SQL validation failed. Object 'x' not found
\tat org.apache.flink.table.planner.calcite.FlinkPlannerImpl.validate(FlinkPlannerImpl.scala:200)
\t... 7 more
Caused by: org.apache.calcite.sql.validate.SqlValidatorException: Object 'x' not found, password=geheim
\tat java.base/jdk.internal.reflect.NativeConstructorAccessorImpl.newInstance0(Native Method)
\t... 29 more
"""


@contextmanager
def answering(answers: dict[str, tuple[int, object]]) -> Iterator[str]:
    """A server that answers by the end of the path; a path it doesn't know is never answered."""
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = next((answers[end] for end in answers if self.path.endswith(end)), None)
            if found is None:
                done.wait(30)
                return
            body = found[1] if isinstance(found[1], bytes) else json.dumps(found[1]).encode()
            self.send_response(found[0])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815  # http.server looks for these

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        done.set()
        server.shutdown()
        server.server_close()


SESSION = {"/sessions": (200, {"sessionHandle": "s1"}), "/sessions/s1": (200, {"status": "CLOSED"})}
OPERATION = {"/statements": (200, {"operationHandle": "o1"}), "/status": (200, {"status": "ERROR"})}


def test_the_innermost_cause_is_told_in_one_line_without_secrets() -> None:
    assert root_cause(TRACE, ["geheim"]) == "SqlValidatorException: Object 'x' not found, password=…"
    assert root_cause("just text\nof two lines") == "just text of two lines"
    assert root_cause("java.lang.NullPointerException\n\tat a.b(C.java:1)") == "NullPointerException"
    assert len(root_cause("x" * 10_000)) < 500


def test_a_cause_without_words_leaves_the_one_around_it() -> None:
    trace = "a.b.JobException: no slots\nCaused by: java.util.concurrent.TimeoutException\n\tat x.y(Z.java:1)"
    assert root_cause(trace) == "JobException: no slots"


def test_a_statement_that_fails_is_one_sentence_without_its_values() -> None:
    failed = {"?rowFormat=JSON": (500, {"errors": ["Internal server error.", TRACE]})}
    with (
        answering({**SESSION, **OPERATION, **failed}) as url,
        GatewaySession(url, timeout_seconds=5, secrets=["geheim"]) as session,
        pytest.raises(StatementError) as error,
    ):
        session.run("CREATE CATALOG x WITH ('password' = 'geheim')", timeout_seconds=5)
    assert str(error.value) == (
        "Flink refused CREATE CATALOG x WITH: SqlValidatorException: Object 'x' not found, password=…"
    )


def test_a_gateway_that_was_started_anew_has_lost_the_session() -> None:
    gone = "org.apache.flink.table.gateway.api.utils.SqlGatewayException: Session 's1' does not exist."
    with (
        answering({**SESSION, "/statements": (500, {"errors": ["Internal server error.", gone]})}) as url,
        GatewaySession(url, timeout_seconds=5) as session,
        pytest.raises(SessionLostError, match="open another one"),
    ):
        session.run("SELECT 1", timeout_seconds=5)


def test_a_statement_that_takes_too_long_is_cancelled() -> None:
    running = {**OPERATION, "/status": (200, {"status": "RUNNING"}), "/cancel": (200, {"status": "CANCELED"})}
    with (
        answering({**SESSION, **running}) as url,
        GatewaySession(url, timeout_seconds=5) as session,
        pytest.raises(FlinkTimeoutError, match="did not end INSERT INTO t in time"),
    ):
        session.run("INSERT INTO t (a) VALUES (1)", timeout_seconds=0.2)


def test_a_server_that_hangs_is_waited_for_as_long_as_said() -> None:
    with (
        answering({}) as url,
        JobManager(url, timeout_seconds=1) as manager,
        pytest.raises(FlinkTimeoutError, match=r"JobManager .* gave no answer within 1 s"),
    ):
        manager.jobs()


def test_nothing_at_an_address_names_the_setting() -> None:
    with answering({}) as url:
        pass
    with JobManager(url, timeout_seconds=5) as manager, pytest.raises(FlinkUnavailableError) as gone:
        manager.jobs()
    assert "LAKEHOUSE_FLINK_URL" in str(gone.value)
    with pytest.raises(FlinkUnavailableError, match="LAKEHOUSE_FLINK_GATEWAY_URL"):
        GatewaySession(url, timeout_seconds=5)


@pytest.mark.parametrize("url", ["", "localhost:8081", "ftp://127.0.0.1:1", "http://[", "http://x:y"])
def test_what_is_no_address_names_the_setting(url: str) -> None:
    with pytest.raises(FlinkError, match="LAKEHOUSE_FLINK_URL"):
        JobManager(url, timeout_seconds=5).jobs()


def test_another_kind_of_server_is_told_apart() -> None:
    with (
        answering({"/jobs/overview": (404, b"<html>nginx</html>")}) as url,
        JobManager(url, timeout_seconds=5) as manager,
        pytest.raises(FlinkError, match="isn't Flink's JobManager"),
    ):
        manager.jobs()


def test_a_job_manager_without_a_leader_is_worth_trying_again() -> None:
    electing = {"errors": ["Service temporarily unavailable due to an ongoing leader election."]}
    with (
        answering({"/jobs/overview": (503, electing)}) as url,
        JobManager(url, timeout_seconds=5) as manager,
        pytest.raises(FlinkUnavailableError, match="isn't ready yet"),
    ):
        manager.jobs()
