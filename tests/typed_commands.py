"""Running `lakehouse` as a person does: in a folder of its own, without anybody's settings."""

import os
import subprocess
import sys
from pathlib import Path

LAKEHOUSE = Path(sys.executable).with_name("lakehouse")


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """Return variables for a home in `folder`, with these settings and no others."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LAKEHOUSE_", "DAGSTER_"))}
    named = {f"LAKEHOUSE_{name.upper()}": value for name, value in settings.items()}
    return clean | {"LAKEHOUSE_HOME": str(folder / "data")} | named


def run(folder: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end."""
    return subprocess.run(
        [LAKEHOUSE, *arguments],
        env=environment(folder, **settings),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
    )


def output_of(folder: Path, *arguments: str, **settings: str) -> str:
    """Run the command, which must succeed, and return what it prints on stdout."""
    done = run(folder, *arguments, **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
