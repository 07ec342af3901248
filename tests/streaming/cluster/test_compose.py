"""compose.yaml starts what processes.toml defines: the same images, ports, memory and order."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lakehouse.settings import Settings
from streaming.cluster.definition import DOCKER, load

PASSWORDS = {"LAKEHOUSE_POSTGRES_PASSWORD": "one", "LAKEHOUSE_IGGY_PASSWORD": "two"}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    return found


@pytest.mark.parametrize("name", load().process)
def test_a_service_is_the_process_of_its_name(services: dict[str, Any], name: str) -> None:
    process, service = load().process[name], services[name]
    assert service["mem_limit"] == f"{process.memory_mib}m"
    if process.main:
        assert service["command"] == ["lakehouse", "cluster", "run", name]
        assert service["healthcheck"]["test"] == ["CMD", "lakehouse", "cluster", "ready", name]
        assert tuple(service.get("depends_on", ())) == process.after
        assert all(how == {"condition": "service_healthy"} for how in service.get("depends_on", {}).values())
    else:
        assert service["image"] == load().images[name]
        assert str(load().ports[process.port]) in str(service)


def test_the_workers_are_led_to_the_processes_ports(services: dict[str, Any]) -> None:
    ports = load().ports
    for name in ("feed", "bridge", "archive", "flink-job", "dagster-webserver", "dagster-daemon"):
        variables = services[name]["environment"]
        assert variables["LAKEHOUSE_IGGY_ADDRESS"] == f"iggy:{ports['iggy']}"
        assert variables["LAKEHOUSE_FLUSS_ADDRESS"] == f"fluss-coordinator:{ports['fluss-coordinator']}"
        assert variables["LAKEHOUSE_FLINK_URL"] == f"http://flink-jobmanager:{ports['flink-rest']}"
        assert variables["LAKEHOUSE_FLINK_GATEWAY_URL"] == f"http://flink-gateway:{ports['flink-gateway']}"
        assert variables["LAKEHOUSE_ICEBERG_CATALOG"].endswith(f"@postgres:{ports['postgres']}/iceberg")
        assert variables["LAKEHOUSE_HOST"] == name


def test_dagster_finds_its_runs_where_postgres_is(services: dict[str, Any]) -> None:
    address = services["dagster-daemon"]["environment"]["DAGSTER_POSTGRES_URL"]
    assert address == services["dagster-webserver"]["environment"]["DAGSTER_POSTGRES_URL"]
    assert address.startswith("postgresql+psycopg2://lakehouse:${LAKEHOUSE_POSTGRES_PASSWORD:")
    assert address.endswith(f"@postgres:{load().ports['postgres']}/dagster")


def test_every_variable_of_ours_is_a_setting(services: dict[str, Any]) -> None:
    known = {f"LAKEHOUSE_{field.upper()}" for field in Settings.model_fields}
    used = {
        name
        for service in services.values()
        for name in service.get("environment", {})
        if name.startswith("LAKEHOUSE_")
    }
    assert used
    assert used <= known


def test_only_loopback_is_published_and_every_image_is_pinned(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    for service in services.values():
        _, _, tag = service["image"].partition(":")
        assert tag
        assert tag != "latest"
        assert service["mem_limit"]


def test_dagster_in_containers_differs_by_its_storage_only() -> None:
    ours = yaml.safe_load((DOCKER / "dagster" / "dagster.yaml").read_text())
    local = yaml.safe_load((DOCKER.parent / "dagster.yaml").read_text())
    assert "postgres" in ours.pop("storage")
    assert "custom" in local.pop("storage")
    assert ours == yaml.safe_load(yaml.safe_dump(local).replace(".lakehouse/dagster", "/data/dagster"))


def test_compose_accepts_the_file(tmp_path: Path) -> None:
    given = os.environ.get("LAKEHOUSE_TEST_COMPOSE")
    compose = [given] if given else ["docker", "compose"]
    found = shutil.which(compose[0])
    if not found or subprocess.run([*compose, "version"], capture_output=True).returncode:
        pytest.skip(
            "Docker's compose is not installed, and its plugin is in no package registry of Debian: set "
            "LAKEHOUSE_TEST_COMPOSE to its program"
        )
    environment = tmp_path / "environment"
    environment.write_text("".join(f"{name}={value}\n" for name, value in PASSWORDS.items()))
    options = ["--file", str(DOCKER / "compose.yaml"), "--env-file", str(environment)]
    done = subprocess.run([*compose, *options, "config", "--quiet"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
