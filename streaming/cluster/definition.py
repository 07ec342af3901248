"""The definition of the cluster's processes: docker/processes.toml, read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

import lakehouse

DOCKER: Final = Path(lakehouse.__file__).parents[1] / "docker"
"""The folder of the definition, the configuration templates and the lists of jars."""


class ClusterError(Exception):
    """The cluster can't be started or reached; the text is one sentence that says why and what to do."""


class MissingProgramError(ClusterError):
    """Something that has to be installed isn't: Java, Maven, PostgreSQL."""


class Process(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One server. Those without a `main` class are programs of this machine: PostgreSQL and Iggy."""

    port: str
    """Name of the port at which it is asked whether it is ready."""
    ready: str
    """How it is asked: see streaming/cluster/readiness.py."""
    memory_mib: int
    after: tuple[str, ...] = ()
    main: str = ""
    classpath: str = ""
    arguments: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    heap_mib: int = 0
    direct_mib: int = 0
    metaspace_mib: int = 0
    niceness: int = 0
    """How far it gives way to others where processors are scarce, as `nice` counts: up to 19."""
    id: int = 0


class Definition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All processes, in the order of the file, with their ports, images and limits."""

    memory_mib: int
    ready_seconds: int
    java: tuple[int, int]
    classpaths: Mapping[str, tuple[str, ...]]
    images: Mapping[str, str]
    ports: Mapping[str, int]
    process: Mapping[str, Process]


def load(file: Path = DOCKER / "processes.toml") -> Definition:
    """Read a definition.

    Raises:
        ClusterError: it can't be read, or names something that isn't in it.
    """
    try:
        found = msgspec.toml.decode(file.read_bytes(), type=Definition)
    except (OSError, msgspec.DecodeError) as error:
        raise ClusterError(f"{file} can't be read: {error}") from None
    for name, process in found.process.items():
        unknown = {process.port} - set(found.ports) | set(process.after) - set(found.process)
        if process.main:
            unknown |= {process.classpath} - set(found.classpaths)
        if unknown:
            raise ClusterError(f"{file}: {name} names {', '.join(sorted(unknown))}, which isn't defined")
    return found


@dataclass(frozen=True)
class Sums:
    """The jars and their SHA-256 sums, as committed in docker/jars/SHA256SUMS."""

    of: Mapping[str, str]
    """Path below the folder of jars → sum in hexadecimal."""

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """All paths, in order."""
        return tuple(sorted(self.of))

    def starting_with(self, beginnings: tuple[str, ...]) -> tuple[str, ...]:
        """Return the paths that a classpath's beginnings stand for."""
        return tuple(path for path in self.paths if path.startswith(beginnings))


def load_sums(file: Path = DOCKER / "jars" / "SHA256SUMS") -> Sums:
    """Read the list of jars."""
    lines = (line.split() for line in file.read_text().splitlines())
    return Sums({path: digest for digest, path in lines})
