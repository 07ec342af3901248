"""A wrong address, password or catalog ends the start in one sentence, before any worker runs."""

import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest
from pydantic import SecretStr
from running_cluster import RunningCluster
from typed_commands import environment

from lakehouse.home import Home

ROOT = Path(__file__).parents[2]
CHOSEN = (
    *("profile", "spine", "fluss_address", "flink_url", "flink_gateway_url", "iceberg_catalog"),
    "cluster_ports",
)


def trial(cluster: RunningCluster, folder: Path, **wrong: str) -> "subprocess.CompletedProcess[str]":
    """Try the settings that lead to the cluster, with these in the place of the right ones."""
    values = cluster.settings(folder / "data").model_dump(include=set(CHOSEN))
    settings = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
    }
    Home(folder / "data", "simulated").create()
    return subprocess.run(
        [sys.executable, "-m", "streaming.workers.trial"],
        env=environment(folder, **settings | {"fluss_timeout_seconds": "5"} | wrong),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )


def catalog(cluster: RunningCluster, folder: Path) -> str:
    found = cluster.settings(folder / "data").iceberg_catalog
    assert found is not None
    return found.get_secret_value()


def test_settings_that_are_right_say_nothing(cluster: RunningCluster, tmp_path: Path) -> None:
    done = trial(cluster, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("fluss_address", "127.0.0.1:1", "LAKEHOUSE_FLUSS_ADDRESS"),
        ("fluss_address", "nowhere", "set LAKEHOUSE_FLUSS_ADDRESS to host:port"),
        ("flink_url", "http://127.0.0.1:1", "Flink's JobManager at http://127.0.0.1:1 can't be reached"),
        ("flink_gateway_url", "http://127.0.0.1:1", "or correct LAKEHOUSE_FLINK_GATEWAY_URL"),
        ("flink_gateway_url", "8083", "'8083' is no address: set LAKEHOUSE_FLINK_GATEWAY_URL"),
        ("iceberg_catalog", "postgresql://a:b@127.0.0.1:1/iceberg", "127.0.0.1:1 can't be reached: start it"),
        ("iceberg_catalog", "mysql://a:b@c/d", "LAKEHOUSE_ICEBERG_CATALOG takes postgresql://user:password@"),
        ("fluss_replicas", "5", "or set LAKEHOUSE_FLUSS_REPLICAS to their number"),
    ],
)
def test_an_address_that_is_wrong_is_one_sentence(
    cluster: RunningCluster, tmp_path: Path, setting: str, value: str, sentence: str
) -> None:
    assert_one_sentence(trial(cluster, tmp_path, **{setting: value}), sentence)


def test_a_wrong_password_is_one_sentence(cluster: RunningCluster, tmp_path: Path) -> None:
    user, _, rest = catalog(cluster, tmp_path).rpartition("@")
    wrong = f"{user.rpartition(':')[0]}:wr0ng@{rest}"
    done = trial(cluster, tmp_path, iceberg_catalog=wrong)
    assert_one_sentence(done, "check the password in LAKEHOUSE_ICEBERG_CATALOG")
    assert "wr0ng" not in done.stderr


def test_a_catalog_of_another_name_is_one_sentence(cluster: RunningCluster, tmp_path: Path) -> None:
    assert trial(cluster, tmp_path).returncode == 0
    with psycopg2.connect(catalog(cluster, tmp_path)) as connection, connection.cursor() as cursor:
        for table in ("iceberg_tables", "iceberg_namespace_properties"):
            cursor.execute(f"UPDATE {table} SET catalog_name = 'lakehouse'")
    connection.close()
    done = trial(cluster, tmp_path)
    assert_one_sentence(done, "holds simulated in a catalog called lakehouse, not simulated: give that")


def test_a_home_of_the_other_engine_is_one_sentence(cluster: RunningCluster, tmp_path: Path) -> None:
    Home(tmp_path / "data", "simulated").create().claim("embedded")
    assert_one_sentence(trial(cluster, tmp_path), "written by the embedded engine: set LAKEHOUSE_ENGINE=")


def assert_one_sentence(done: "subprocess.CompletedProcess[str]", sentence: str) -> None:
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
