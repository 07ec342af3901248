import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from watched_world import World

from lakehouse.home import Home
from lakehouse.market.time import DAY_US, HOUR_US, MINUTE_US, SECOND_US, now_us
from lakehouse.settings import SettingsError, load_settings
from lakehouse_assets.operations import alerts as module
from lakehouse_assets.operations.alerts import MOST_SENT, REMEMBERED_US, Alert, Alerts

TOKEN = "T0KEN-of-the-webhook"
ONE = Alert("failed_run:1", "A run failed", "Look at it")


class Webhook:
    """A server that takes alerts, and can be down."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.status = 200
        self.pause = threading.Event()
        self.hangs = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/json"
                if outer.hangs:
                    outer.pause.wait(10)
                if outer.status == 200:
                    outer.bodies.append(json.loads(body))
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = SecretStr(f"http://127.0.0.1:{self.server.server_port}/{TOKEN}")
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    running = Webhook()
    yield running
    running.pause.set()
    running.server.shutdown()
    running.server.server_close()


@pytest.fixture
def kept(tmp_path: Path) -> Alerts:
    return Alerts(Home(tmp_path, "simulated").create())


def test_an_alert_is_posted_once_with_what_the_documents_say(kept: Alerts, webhook: Webhook) -> None:
    assert kept.raise_all([ONE]) == 1
    assert kept.raise_all([ONE, ONE]) == 0
    assert kept.send(webhook.url, now_us()) == (1, 0)
    assert kept.send(webhook.url, now_us()) == (0, 0)
    assert kept.raise_all([ONE]) == 0  # it is known after it was sent, too
    (body,) = webhook.bodies
    assert set(body) == {"source", "namespace", "key", "title", "text", "raised_at", "attempt"}
    assert (body["source"], body["namespace"], body["key"]) == ("lakehouse", "simulated", ONE.key)
    assert body["text"] == "A run failed: Look at it"
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    assert all(f"`{name}`" in page for name in body)


@pytest.mark.parametrize("status", [500, 404, 302])
def test_an_alert_outlives_a_webhook_that_refuses(kept: Alerts, webhook: Webhook, status: int) -> None:
    webhook.status = status
    kept.raise_all([ONE])
    start = now_us()
    assert kept.send(webhook.url, start) == (0, 1)
    webhook.status = 200
    assert kept.send(webhook.url, start + SECOND_US) == (0, 1)  # not before the pause is over
    assert kept.send(webhook.url, start + MINUTE_US) == (1, 0)
    assert webhook.bodies[0]["attempt"] == 2


def test_a_webhook_that_hangs_is_left_after_a_while(
    kept: Alerts, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.2)
    webhook.hangs = True
    kept.raise_all([ONE])
    assert kept.send(webhook.url, now_us()) == (0, 1)


def test_attempts_are_bounded_and_the_alert_is_given_up_in_the_log(
    kept: Alerts, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook.status = 503
    kept.raise_all([ONE])
    start = now_us()
    posts = 0
    for minute in range(0, 2 * 24 * 60):
        moment = start + minute * MINUTE_US
        before = _attempts(kept)
        kept.send(webhook.url, moment)
        posts += _attempts(kept) - before
    assert 24 < posts < 40
    with structlog.testing.capture_logs() as logs:
        assert kept.send(webhook.url, start + 2 * DAY_US) == (0, 0)
    assert logs == []
    assert kept.raise_all([ONE]) == 0


def test_giving_up_says_the_whole_alert_once_more(kept: Alerts, webhook: Webhook) -> None:
    webhook.status = 503
    kept.raise_all([ONE])
    with structlog.testing.capture_logs() as logs:
        kept.send(webhook.url, now_us() + 25 * HOUR_US)
    (line,) = logs
    assert line["log_level"] == "error"
    assert (line["title"], line["text"], line["problem"]) == (ONE.title, ONE.text, "HTTP 503")


def _attempts(kept: Alerts) -> int:
    return sum(one.attempts for _, one in kept._all())


def test_when_the_webhook_is_back_what_waited_comes_a_bounded_number_at_a_time(
    kept: Alerts, webhook: Webhook
) -> None:
    many = [Alert(f"k:{number}", "t", "x") for number in range(MOST_SENT + 5)]
    kept.raise_all(many)
    webhook.status = 500
    assert kept.send(webhook.url, now_us())[0] == 0
    assert _attempts(kept) == 1  # the first failure ends the round
    webhook.status = 200
    later = now_us() + HOUR_US
    assert kept.send(webhook.url, later) == (MOST_SENT, 5)
    assert kept.send(webhook.url, later) == (5, 0)
    assert sorted(body["key"] for body in webhook.bodies) == sorted(alert.key for alert in many)


def test_more_alerts_than_may_wait_are_only_logged(kept: Alerts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OPEN", 3)
    with structlog.testing.capture_logs() as logs:
        assert kept.raise_all([Alert(f"k:{number}", "t", "x") for number in range(5)]) == 3
    assert [line["event"] for line in logs] == ["alert"] * 3 + ["an alert too many: it is only logged"] * 2


def test_a_damaged_file_is_told_of_and_costs_no_other_alert(kept: Alerts, webhook: Webhook) -> None:
    kept.raise_all([ONE])
    kept._folder.joinpath("x.json").write_bytes(b"\xff{")
    with structlog.testing.capture_logs() as logs:
        assert kept.send(webhook.url, now_us()) == (1, 0)
    assert [line["event"] for line in logs] == ["an alert's file is damaged and is deleted"]


def test_what_was_sent_is_forgotten_after_a_month(kept: Alerts, webhook: Webhook) -> None:
    kept.raise_all([ONE])
    kept.send(webhook.url, now_us())
    kept.send(webhook.url, now_us() + REMEMBERED_US + MINUTE_US)
    assert not list(kept._folder.iterdir())


def test_without_a_webhook_alerts_are_in_the_log_and_wait_for_nothing(kept: Alerts) -> None:
    with structlog.testing.capture_logs() as logs:
        kept.raise_all([ONE])
    assert (logs[0]["event"], logs[0]["text"]) == ("alert", "Look at it")
    assert kept.send(None, now_us()) == (0, 0)


@pytest.mark.parametrize("broken", ["down", "refusing", "not an address"])
def test_the_token_of_the_webhook_is_never_written(
    kept: Alerts, webhook: Webhook, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    url = {
        "down": f"http://127.0.0.1:1/{TOKEN}",
        "refusing": webhook.url.get_secret_value(),
        "not an address": f"http://[{TOKEN}",
    }[broken]
    webhook.status = 500
    kept.raise_all([ONE])
    with structlog.testing.capture_logs() as logs:
        assert kept.send(SecretStr(url), now_us()) == (0, 1)
    assert logs
    assert TOKEN not in str(logs)
    assert TOKEN not in caplog.text
    assert not any(TOKEN in path.read_text() for path in kept._folder.iterdir())
    assert TOKEN not in repr(load_settings(alert_webhook_url=f"https://x/{TOKEN}"))


def test_a_webhook_that_is_no_address_is_refused_without_being_shown() -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(alert_webhook_url=TOKEN)
    assert TOKEN not in str(refused.value)
    assert "LAKEHOUSE_ALERT_WEBHOOK_URL" in str(refused.value)


@pytest.mark.parametrize("cursor", [None, "garbage", "\x00"])
def test_the_sensor_sends_what_other_sensors_raised(
    world: World, webhook: Webhook, monkeypatch: pytest.MonkeyPatch, cursor: str | None
) -> None:
    assert "no alert" in str(world.tick("send_alerts", cursor).skip_reason)
    monkeypatch.setenv("LAKEHOUSE_ALERT_WEBHOOK_URL", webhook.url.get_secret_value())
    run_id = world.fail_a_run()
    world.tick("alert_on_failed_runs")
    world.tick("send_alerts", cursor)
    world.tick("send_alerts", cursor)
    (body,) = webhook.bodies
    assert body["key"] == f"failed_run:{run_id}"
    assert "the disk is full" in body["text"]
    assert f"/runs/{run_id}" in body["text"]
    resources = repr(world.defs.resources) + str(world.tables)
    assert TOKEN not in resources
