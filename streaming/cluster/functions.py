"""Our own functions for Flink's SQL: compiled from their Java source, once for each version of it."""

import hashlib
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from lakehouse.stores.lock import held
from streaming.cluster.definition import DOCKER, ClusterError, Sums

_SOURCES: Final = DOCKER / "flink" / "functions"
_RELEASE: Final = "17"


def functions_folder(jars: Path) -> Path:
    """Return the folder for the classpath; another version of a source has another."""
    digest = hashlib.sha256()
    for source in _sources():
        digest.update(source.read_bytes())
    return jars / f"functions-{digest.hexdigest()[:12]}"


def ensure_functions(jars: Path, sums: Sums, java: Path) -> None:
    """Compile the functions if that has not been done, with the compiler among the jars.

    Args:
        jars: the folder, which holds all jars.
        sums: what they are.
        java: the Java that runs the compiler.

    Raises:
        ClusterError: a source can't be compiled.
    """
    target = functions_folder(jars)
    with held(jars, "functions"):
        if target.exists():
            return
        (compiler,) = sums.starting_with(("compiler/",))
        libraries = ":".join(str(jars / path) for path in sums.starting_with(("flink/",)))
        with tempfile.TemporaryDirectory(dir=jars) as folder:
            made = Path(folder, "functions")
            options = ("--release", _RELEASE, "-cp", libraries, "-d", str(made))
            command = (str(java), "-jar", str(jars / compiler), *options, *map(str, _sources()))
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                problem = " ".join((done.stderr or done.stdout).split())[:500]
                raise ClusterError(f"{_SOURCES} can't be compiled by {java}: {problem}")
            made.replace(target)


def _sources() -> list[Path]:
    return sorted(_SOURCES.glob("*.java"))
