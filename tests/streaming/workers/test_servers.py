"""What `lakehouse up` does about the log where the profile alone asks for Iggy, and nobody answers."""

from pathlib import Path

import pytest
from free_ports import free_ports

from lakehouse.home import Home
from lakehouse.settings import Settings, load_settings
from streaming.workers.servers import servers


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    return load_settings(
        home=tmp_path, profile="cluster", hot_store="sqlite", engine="embedded", iggy_address=address
    )


def test_a_new_home_takes_the_embedded_log_and_it_is_said(settings: Settings) -> None:
    home = Home(settings.home, "simulated").create()
    for _ in range(2):
        said: list[str] = []
        with servers(settings, home, said.append) as chosen:
            assert chosen.spine_kind == "sqlite"
        assert said[0].startswith("No Iggy server: the log is the embedded one (SQLite).")


def test_a_home_whose_log_is_in_iggy_takes_no_other(settings: Settings) -> None:
    home = Home(settings.home, "simulated").create()
    home.settled("log", "iggy")
    with servers(settings, home, print) as chosen:
        assert chosen.spine_kind == "iggy"


def test_who_asks_for_iggy_by_name_gets_it(settings: Settings) -> None:
    home = Home(settings.home, "simulated").create()
    with servers(settings.model_copy(update={"spine": "iggy"}), home, print) as chosen:
        assert chosen.spine_kind == "iggy"
