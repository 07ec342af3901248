"""The Java parts: fetched once, by Maven and pip, and held to the committed SHA-256 sums at every start."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from lakehouse.stores.lock import held
from streaming.cluster.definition import DOCKER, ClusterError, MissingProgramError, Sums

Say = Callable[[str], None]
"""Takes a line of progress for a person."""


def find_java(versions: tuple[int, int]) -> Path:
    """Return JAVA_HOME's `java`, or else the one on the PATH.

    Args:
        versions: the lowest and the highest that will do.

    Raises:
        MissingProgramError: there is none, or it is of another version.
    """
    home = os.environ.get("JAVA_HOME")
    java = Path(home, "bin", "java") if home else Path(shutil.which("java") or "java")
    version = _java_version(java)
    lowest, highest = versions
    if version is not None and lowest <= version <= highest:
        return java
    found = f"{java} is Java {version}" if version else f"{java} doesn't run" if home else "there is no java"
    raise MissingProgramError(
        f"Java {lowest} to {highest} is needed, and {found}: install one (apt-get install "
        f"openjdk-{lowest}-jre-headless) and set JAVA_HOME if it isn't the only one"
    )


def _java_version(java: Path) -> int | None:
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    number = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    return int(number[1]) if number else None


def ensure_jars(folder: Path, sums: Sums, java: Path, say: Say) -> None:
    """Make sure that the folder holds every jar with its committed sum; fetch what it lacks.

    Processes that start at the same time fetch one after the other, so the second finds all of it.

    Raises:
        ClusterError: no Maven, no network, a wrong sum, a folder that can't be written.
    """
    try:
        with held(folder, "jars"):
            missing = _missing(folder, sums)
            if not missing:
                return
            say(f"Fetching the cluster's Java parts (513 MB, once) into {folder}")
            for name in sorted({path.split("/")[0] for path in missing}):
                _by_maven(name, folder / name, java, say)
            if _missing(folder, sums):
                _by_pip(folder / "flink", sums, say)
            if still := _missing(folder, sums):
                raise ClusterError(
                    f"docker/jars lists {', '.join(still)}, which the download didn't bring: take them off "
                    "SHA256SUMS or put them into the lists"
                )
    except OSError as error:
        raise ClusterError(
            f"the folder of jars {str(folder)!r} can't be used ({error.strerror}): set LAKEHOUSE_CLUSTER_JARS"
        ) from None


def _missing(folder: Path, sums: Sums) -> list[str]:
    """Return the jars that the folder lacks.

    Raises:
        ClusterError: one is there with another sum.
    """
    missing = []
    for path, expected in sums.of.items():
        try:
            with (folder / path).open("rb") as jar:
                actual = hashlib.file_digest(jar, "sha256").hexdigest()
        except FileNotFoundError:
            missing.append(path)
            continue
        if actual != expected:
            raise ClusterError(
                f"{folder / path} has the SHA-256 sum {actual[:12]}…, not {expected[:12]}… as committed in "
                "docker/jars/SHA256SUMS: delete the file and start again, and don't run it if that repeats"
            )
    return missing


def _by_maven(name: str, target: Path, java: Path, say: Say) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingProgramError(
            "Maven (mvn) is needed to fetch the cluster's jars: install it (apt-get install maven), or set "
            "LAKEHOUSE_CLUSTER_JARS to a folder that has them"
        )
    command = [maven, "--batch-mode", "--file", str(DOCKER / "jars" / f"{name}.xml")]
    command += ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={target}"]
    home = {"JAVA_HOME": str(java.resolve().parents[1])}
    _run(command, "Maven", re.compile(r"Downloaded from \S+: \S*/(\S+\.jar \(.*\))"), home, say)


def _by_pip(target: Path, sums: Sums, say: Say) -> None:
    """Take Flink's own jars out of the source package of its Python side; nothing of it is installed."""
    with tempfile.TemporaryDirectory(dir=target) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-cache-dir"]
        command += ["--disable-pip-version-check", "--progress-bar=off", "--dest", folder]
        command += ["--requirement", str(DOCKER / "jars" / "flink.txt")]
        _run(command, "pip", re.compile(r"Downloading (\S+ \(.*\))"), {}, say)
        (package,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(package) as archive:
            for member in archive:
                name = Path(member.name).name
                if member.isfile() and f"flink/{name}" in sums.of:
                    source = archive.extractfile(member)
                    assert source is not None  # it is a file
                    partial = Path(folder) / name
                    with partial.open("wb") as written:
                        shutil.copyfileobj(source, written)
                    partial.replace(target / name)


def _run(
    command: list[str], name: str, progress: re.Pattern[str], variables: dict[str, str], say: Say
) -> None:
    last_error = ""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | variables,
    ) as process:
        assert process.stdout is not None  # it is a pipe
        for line in process.stdout:
            if found := progress.search(line):
                say(f"  {found[1]}")
            elif "ERROR" in line and not last_error:
                last_error = line.split("ERROR", 1)[1].partition(" -> [Help")[0].strip("]: \n")
    if process.returncode:
        said = last_error[:300] or f"exit code {process.returncode}"
        raise ClusterError(
            f"{name} could not fetch the cluster's jars ({said}): "
            "check the network, or set LAKEHOUSE_CLUSTER_JARS to a folder that has them"
        )
