"""What `lakehouse status` says where no `lakehouse up` runs the workers, as in containers."""

from pathlib import Path

from lakehouse.home import Home
from lakehouse.settings import load_settings
from streaming.workers.metrics import serve
from streaming.workers.status import report


def test_workers_that_nobody_supervises_speak_for_themselves(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, metrics_port=0)
    home = Home(tmp_path, "simulated").create()
    assert report(settings, home).wrong == ["nothing is running: start it with `lakehouse up`"]
    for worker in ("feed", "archive", "candles"):
        serve(worker, settings, home)
    said = report(settings, home).wrong
    assert [sentence for sentence in said if sentence.startswith("worker ")] == [
        "worker exchange doesn't answer (yet)",
        "worker hot doesn't answer (yet)",
    ]
    assert not any("nothing is running" in sentence for sentence in said)
