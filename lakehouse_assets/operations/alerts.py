"""Alerts: what a person has to know of, in the log and at a webhook; none is lost and none is sent twice.

An alert is a file in the home from the moment it is raised, so it outlives a webhook that is down, a damaged
cursor and a restart. Its key says what makes it this alert: raising it again does nothing. The sensor
`send_alerts` posts what is open and tries again, after growing pauses, for a day. What was settled stays a
month, so that it isn't raised anew.
"""

import contextlib
import hashlib
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import dagster as dg
import httpx
import msgspec
import structlog
from pydantic import SecretStr

from lakehouse.home import Home
from lakehouse.market.time import DAY_US, HOUR_US, SECOND_US, now_us, to_iso
from lakehouse.settings import load_settings
from lakehouse_assets.resources import Lakehouse

TIMEOUT_SECONDS: Final = 5.0
MOST_SENT: Final = 20
"""Alerts sent in one tick."""
MOST_OPEN: Final = 1_000
"""Alerts that may wait for the webhook; more are only logged."""

FIRST_PAUSE_US: Final = 30 * SECOND_US
LONGEST_PAUSE_US: Final = HOUR_US
TRIED_FOR_US: Final = DAY_US
REMEMBERED_US: Final = 30 * DAY_US

log = structlog.get_logger()

# Its line for each request has the whole address, whose path is the webhook's token.
logging.getLogger("httpx").setLevel(logging.WARNING)


class Alert(msgspec.Struct, frozen=True):
    """Something that a person has to know of."""

    key: str
    """What makes it this alert and no other, such as `failed_run:<run id>`."""
    title: str
    text: str
    """What is wrong, and what to do."""


class _Kept(msgspec.Struct):
    """An alert's file; moments in µs UTC."""

    alert: Alert
    raised_us: int
    attempts: int = 0
    next_us: int = 0
    """When to send it (again)."""
    settled_us: int = 0
    """When it was sent or given up; 0 while it is open."""


class Alerts:
    """The alerts of one home."""

    def __init__(self, home: Home) -> None:
        self._namespace = home.namespace
        self._folder = home.alerts

    def raise_all(self, alerts: list[Alert]) -> int:
        """Log and keep those alerts that were not raised before, and return how many.

        Raises:
            OSError: one can't be kept. Raise them again: those that are kept are known.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        new = [alert for alert in alerts if not self._path(alert).exists()]
        waiting = sum(not kept.settled_us for _, kept in self._all()) if new else 0
        raised = 0
        for alert in new:
            if waiting + raised >= MOST_OPEN:
                log.error("an alert too many: it is only logged", **_fields(alert))
                continue
            if _written_once(self._path(alert), _Kept(alert, now_us())):
                log.error("alert", **_fields(alert))
                raised += 1
        return raised

    def send(self, webhook: SecretStr | None, moment_us: int) -> tuple[int, int]:
        """Send what is due, until the webhook fails, and return how many were sent and how many are open.

        Without a webhook, alerts are settled as they are: they were logged.

        Args:
            webhook: where to.
            moment_us: now, µs UTC.
        """
        sent = 0
        is_up = True
        open_alerts = 0
        kept_alerts = sorted(self._all(), key=lambda item: (item[1].next_us, item[1].raised_us))
        for path, kept in kept_alerts:
            if kept.settled_us:
                if moment_us > kept.settled_us + REMEMBERED_US:
                    path.unlink(missing_ok=True)
                continue
            if webhook is None:
                _write(path, msgspec.structs.replace(kept, settled_us=moment_us))
                continue
            if is_up and sent < MOST_SENT and moment_us >= kept.next_us:
                kept.attempts += 1
                problem = _posted(webhook, self._body(kept))
                is_up = problem is None
                self._settle(kept, problem, moment_us)
                sent += problem is None
                _write(path, kept)
            open_alerts += not kept.settled_us
        return sent, open_alerts

    def _settle(self, kept: _Kept, problem: str | None, moment_us: int) -> None:
        if problem is None:
            kept.settled_us = moment_us
            return
        pause = min(FIRST_PAUSE_US * 2 ** min(kept.attempts - 1, 16), LONGEST_PAUSE_US)
        kept.next_us = moment_us + pause
        if moment_us >= kept.raised_us + TRIED_FOR_US:
            kept.settled_us = moment_us
            log.error("alert given up: the webhook failed for a day", problem=problem, **_fields(kept.alert))
        else:
            log.warning("the webhook failed", problem=problem, again_in_s=pause // SECOND_US)

    def _body(self, kept: _Kept) -> bytes:
        """Return what is posted; `docs/operations.md` describes it."""
        return msgspec.json.encode(
            {
                "source": "lakehouse",
                "namespace": self._namespace,
                "key": kept.alert.key,
                "title": kept.alert.title,
                "text": f"{kept.alert.title}: {kept.alert.text}",
                "raised_at": to_iso(kept.raised_us),
                "attempt": kept.attempts,
            }
        )

    def _path(self, alert: Alert) -> Path:
        return self._folder / f"{hashlib.sha256(alert.key.encode()).hexdigest()[:32]}.json"

    def _all(self) -> Iterator[tuple[Path, _Kept]]:
        for path in self._folder.glob("*.json"):
            try:
                yield path, msgspec.json.decode(path.read_bytes(), type=_Kept)
            except FileNotFoundError:
                continue  # settled and forgotten by another process meanwhile
            except (msgspec.MsgspecError, UnicodeError):
                log.exception("an alert's file is damaged and is deleted", file=str(path))
                path.unlink(missing_ok=True)


def _posted(webhook: SecretStr, body: bytes) -> str | None:
    """Post an alert; return what went wrong in words that hold nothing of the address."""
    try:
        answer = httpx.post(
            webhook.get_secret_value(),
            content=body,
            headers={"Content-Type": "application/json"},
            timeout=TIMEOUT_SECONDS,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"no answer ({type(error).__name__})"
    return None if answer.is_success else f"HTTP {answer.status_code}"


def _fields(alert: Alert) -> dict[str, str]:
    return {"key": alert.key, "title": alert.title, "text": alert.text}


def _write(path: Path, kept: _Kept) -> None:
    partial = path.with_suffix(f".{secrets.token_hex(4)}")
    partial.write_bytes(msgspec.json.encode(kept))
    partial.replace(path)


def _written_once(path: Path, kept: _Kept) -> bool:
    """Write a file where there is none; tell whether this process was the first to come."""
    partial = path.with_suffix(f".{secrets.token_hex(4)}")
    partial.write_bytes(msgspec.json.encode(kept))
    try:
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
            return True
        return False
    finally:
        partial.unlink()


def send_alerts_sensor() -> dg.SensorDefinition:
    """Return the sensor that sends alerts; it needs no cursor, as the alerts' files say what is open."""

    @dg.sensor(
        name="send_alerts",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description=(
            "Posts alerts to LAKEHOUSE_ALERT_WEBHOOK_URL and tries again while it is down, for a day. "
            "Without that setting alerts are only in Dagster's log."
        ),
    )
    def send_alerts(context: dg.SensorEvaluationContext, lakehouse: Lakehouse) -> dg.SkipReason:
        if not lakehouse.home.alerts.exists():
            return dg.SkipReason("no alert was ever raised")
        webhook = load_settings(home=lakehouse.home.root).alert_webhook_url
        sent, open_alerts = Alerts(lakehouse.home).send(webhook, now_us())
        return dg.SkipReason(f"{sent} alerts sent, {open_alerts} wait for the webhook")

    return send_alerts
