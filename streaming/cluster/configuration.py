"""What a process is started with: its configuration files, rendered from docker/, and its command."""

from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from streaming.cluster.definition import DOCKER, Definition, Process, Sums
from streaming.cluster.functions import functions_folder
from streaming.cluster.place import Place

_OPTIONS = (
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",  # the supervisor starts it again; half a process is worse than none
    "-XX:ReservedCodeCacheSize=96m",
    "-Djava.net.preferIPv4Stack=true",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
)

_FLINK_OPTIONS = (
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    *(
        f"--add-opens=java.base/{package}=ALL-UNNAMED"
        for package in (
            "java.io",
            "java.lang",
            "java.lang.reflect",
            "java.net",
            "java.text",
            "java.time",
            "java.util",
            "java.util.concurrent",
            "java.util.concurrent.atomic",
            "java.util.concurrent.locks",
            "sun.nio.ch",
        )
    ),
)
"""The packages that Flink's own start scripts open."""


@dataclass(frozen=True)
class Launch:
    """A process as it is to be started."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    """Variables besides those inherited; may hold a password."""
    user: str | None = None
    """Account to run as, None for our own."""
    folder: Path | None = None
    """Working folder, None for the cluster's."""
    stop_signal: str = "TERM"


def java_launch(name: str, definition: Definition, place: Place, sums: Sums, java: Path) -> Launch:
    """Render a Java process's configuration and return how it is started."""
    process = definition.process[name]
    configuration = _render(name, process, definition, place)
    classpath = [place.jars / path for path in sums.starting_with(definition.classpaths[process.classpath])]
    if process.classpath == "flink":
        classpath.append(functions_folder(place.jars))
    arguments = (Template(part).substitute(configuration=configuration) for part in process.arguments)
    command = (
        *(("nice", "-n", str(process.niceness)) if process.niceness else ()),
        str(java),
        place.marker,
        f"-Xmx{process.heap_mib}m",
        f"-XX:MaxDirectMemorySize={process.direct_mib}m",
        f"-XX:MaxMetaspaceSize={process.metaspace_mib}m",
        *_OPTIONS,
        *(_FLINK_OPTIONS if process.classpath == "flink" else ()),
        f"-Dlog4j.configurationFile={(configuration / 'log4j.properties').as_uri()}",
        "-cp",
        ":".join(map(str, classpath)),
        process.main,
        *arguments,
    )
    # One arena of the C allocator instead of eight a core: RocksDB's memory isn't spread over all of them.
    environment = {"MALLOC_ARENA_MAX": "1"}
    if process.classpath == "flink":
        environment["FLINK_CONF_DIR"] = str(configuration)
    return Launch(name, command, environment)


def _render(name: str, process: Process, definition: Definition, place: Place) -> Path:
    data = place.data(name)
    data.mkdir(parents=True, exist_ok=True)
    configuration = place.configuration(name)
    configuration.mkdir(parents=True, exist_ok=True)
    values: dict[str, object] = {
        "data": data,
        "root": place.root,
        "listen": place.listen,
        "host": place.hosts[name],
        "port": place.ports[process.port],
        "id": process.id,
        # Its server can't be told an address: only within a container does it listen to nobody but us.
        "flink_reporter": "none" if place.listen == "127.0.0.1" else "prometheus",
    }
    values |= {f"{_word(other)}_host": host for other, host in place.hosts.items()}
    values |= {f"{_word(port)}_port": number for port, number in place.ports.items()}
    for template in (*process.templates, "log4j.properties"):
        source = DOCKER / template
        (configuration / source.name).write_text(Template(source.read_text()).substitute(values))
    return configuration


def _word(name: str) -> str:
    return name.replace("-", "_")
