"""docker/processes.toml: its laws, and what is rendered from it."""

import re
from pathlib import Path

import pytest
import yaml

from lakehouse.settings import Settings, load_settings
from streaming.cluster.configuration import java_launch
from streaming.cluster.definition import DOCKER, ClusterError, load, load_sums
from streaming.cluster.place import Place, container_place, native_place

JAVA = Path("/usr/bin/java")
JAVA_PROCESSES = [name for name, process in load().process.items() if process.main]


def places(home: Path) -> dict[str, Place]:
    settings = load_settings(home=home)
    return {"native": native_place(settings, load()), "container": container_place(settings, load())}


def test_the_bounds_of_all_processes_are_the_bound_of_the_whole() -> None:
    definition = load()
    bounds = {name: process.memory_mib for name, process in definition.process.items() if name != "iggy"}
    assert sum(bounds.values()) <= definition.memory_mib
    for name in JAVA_PROCESSES:
        process = definition.process[name]
        assert process.heap_mib + process.direct_mib + process.metaspace_mib < process.memory_mib


def test_flinks_memory_is_the_task_managers_in_parts() -> None:
    process = load().process["flink-taskmanager"]
    text = (DOCKER / "flink" / "config.yaml").read_text()
    memory = yaml.safe_load(re.sub(r"\$\{\w+\}", "x", text))["taskmanager"]["memory"]

    def mib(*path: str) -> int:
        found = memory
        for part in path:
            found = found[part]
        return int(str(found).removesuffix("m"))

    assert mib("framework", "heap", "size") + mib("task", "heap", "size") == process.heap_mib
    assert mib("network", "min") == mib("network", "max")
    off_heap = mib("framework", "off-heap", "size") + mib("task", "off-heap", "size") + mib("network", "max")
    assert off_heap == process.direct_mib
    assert mib("jvm-metaspace", "size") == process.metaspace_mib
    overhead = mib("jvm-overhead", "min")
    assert overhead == mib("jvm-overhead", "max")
    whole = process.heap_mib + process.direct_mib + process.metaspace_mib + overhead + mib("managed", "size")
    assert whole == process.memory_mib


def test_the_default_ports_are_those_of_the_settings() -> None:
    settings, ports = Settings(), load().ports
    assert settings.fluss_address == f"127.0.0.1:{ports['fluss-coordinator']}"
    assert settings.flink_url == f"http://127.0.0.1:{ports['flink-rest']}"
    assert settings.flink_gateway_url == f"http://127.0.0.1:{ports['flink-gateway']}"
    assert settings.iggy_address == f"127.0.0.1:{ports['iggy']}"
    assert len(set(ports.values())) == len(ports)


@pytest.mark.parametrize("where", ["native", "container"])
@pytest.mark.parametrize("name", JAVA_PROCESSES)
def test_what_is_rendered_names_the_place(tmp_path: Path, where: str, name: str) -> None:
    place, definition = places(tmp_path)[where], load()
    launch = java_launch(name, definition, place, load_sums(), JAVA)
    rendered = "".join(file.read_text() for file in place.configuration(name).iterdir())
    assert "${" not in rendered
    assert str(place.ports[definition.process[name].port]) in rendered
    assert ("127.0.0.1" in rendered) == (where == "native")
    assert f"-Xmx{definition.process[name].heap_mib}m" in launch.command
    assert definition.process[name].main in launch.command
    if name.startswith("flink"):
        config = yaml.safe_load((place.configuration(name) / "config.yaml").read_text())
        # Its server can't be told an address.
        assert config["metrics"]["reporters"] == ("none" if where == "native" else "prometheus")


@pytest.mark.parametrize(
    ("ports", "wrong"),
    [
        ("postgre=5434", "postgre=5434"),
        ("postgres", "postgres"),
        ("postgres=", "postgres="),
        ("zookeeper=2183,postgres=65536", "postgres=65536"),
        ("postgres=0", "postgres=0"),
        ("fluss-coordinator=9", "fluss-coordinator=9"),  # its address sets it
    ],
)
def test_wrong_ports_are_one_sentence(tmp_path: Path, ports: str, wrong: str) -> None:
    with pytest.raises(ClusterError, match=f"LAKEHOUSE_CLUSTER_PORTS: '{wrong}' isn't a name and a port"):
        native_place(load_settings(home=tmp_path, cluster_ports=ports), load())


def test_ports_are_moved_by_the_settings_that_name_them(tmp_path: Path) -> None:
    settings = load_settings(
        home=tmp_path,
        cluster_ports="postgres=5999, zookeeper=2999",
        fluss_address="127.0.0.1:9999",
        flink_url="http://127.0.0.1:8999",
    )
    ports = native_place(settings, load()).ports
    moved = {"postgres": 5999, "zookeeper": 2999, "fluss-coordinator": 9999, "flink-rest": 8999}
    assert ports == load().ports | moved


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("fluss_address", "10.0.0.3:9123"),
        ("fluss_address", "127.0.0.1"),
        ("flink_url", "http://flink:8081"),
        ("flink_gateway_url", "http://127.0.0.1:port"),
    ],
)
def test_an_address_of_another_machine_is_one_sentence(tmp_path: Path, setting: str, value: str) -> None:
    with pytest.raises(ClusterError, match=f"LAKEHOUSE_{setting.upper()} is '{value}'"):
        native_place(load_settings(home=tmp_path, **{setting: value}), load())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('after = ["zookeeper"]', 'after = ["zookeper"]'),
        ('port = "postgres"', 'port = "postgre"'),
        ('classpath = "fluss"', 'classpath = "flus"'),
        ("memory_mib = 4096", "memory = 4096"),
    ],
)
def test_a_definition_with_a_slip_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = (DOCKER / "processes.toml").read_text()
    assert old in text
    file = tmp_path / "processes.toml"
    file.write_text(text.replace(old, new))
    with pytest.raises(ClusterError, match=str(file)):
        load(file)
