"""Each worker's metrics: an HTTP endpoint for Prometheus, and where to find it.

A worker writes its address to `run/<worker>.json`, so that `lakehouse status` finds it whatever port it
got. The metrics themselves are defined beside what they measure.
"""

import os
from pathlib import Path

import httpx
import msgspec
from prometheus_client import start_http_server
from prometheus_client.parser import text_string_to_metric_families

from lakehouse.home import Home
from lakehouse.settings import Settings
from streaming.workers.roster import WORKERS

Labels = tuple[tuple[str, str], ...]
Samples = dict[str, dict[Labels, float]]
"""A worker's metrics: for each sample name its values by sorted labels."""


class Endpoint(msgspec.Struct, frozen=True):
    """Where a worker's metrics are."""

    pid: int
    url: str


def serve(worker: str, settings: Settings, home: Home) -> None:
    """Start this process's endpoint and record its address.

    Raises:
        OSError: the port is taken.
    """
    port = settings.metrics_port + WORKERS.index(worker) if settings.metrics_port else 0
    server, _ = start_http_server(port, addr=settings.host)
    endpoint = Endpoint(os.getpid(), f"http://{settings.host}:{server.server_port}/metrics")
    path = _path(home, worker)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(endpoint))


def scrape(home: Home, worker: str) -> Samples | None:
    """Return a worker's metrics now, None when it isn't running."""
    try:
        endpoint = msgspec.json.decode(_path(home, worker).read_bytes(), type=Endpoint)
        text = httpx.get(endpoint.url, timeout=2.0).raise_for_status().text
    except (FileNotFoundError, msgspec.MsgspecError, httpx.HTTPError):
        return None  # never started, or gone: that is what None says
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return samples


def total(samples: Samples | None, name: str) -> float:
    """Return the sum of a metric over all its labels; 0 where there is none."""
    return sum((samples or {}).get(name, {}).values())


def _path(home: Home, worker: str) -> Path:
    return home.run / f"{worker}.json"
