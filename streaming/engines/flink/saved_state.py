"""What is left of a streaming job that doesn't run: the newest checkpoint or savepoint, found by its files.

Flink recovers its own jobs from ZooKeeper. This is for the job that was cancelled, stopped for an upgrade or
forgotten: started without its state it would read Fluss from the beginning and archive every row again.
"""

from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from streaming.engines.flink.errors import FlinkError, StateLostError
from streaming.engines.flink.job_manager import JobManager

_COMPLETE: Final = "_metadata"
"""Flink writes this file last."""

_CHECKPOINTS: Final = ("execution.checkpointing.dir", "state.checkpoints.dir")
_SAVEPOINTS: Final = ("execution.checkpointing.savepoint-dir", "state.savepoints.dir")


class JobRecord(msgspec.Struct, frozen=True):
    """What is remembered of a namespace's streaming job, in a file of the home."""

    job_id: str
    started_from: str | None
    """Address of the state it was started from, None for one that began with an empty archive."""
    committed: bool
    """Whether a checkpoint of it was seen: with it rows went into the tables."""


def read_record(file: Path) -> JobRecord | None:
    """Return what is remembered, None where no job ever ran.

    Raises:
        FlinkError: the file is damaged.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=JobRecord)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise FlinkError(
            f"{file} can't be read ({error}): write the id of the last streaming job into it, as in "
            '{"job_id": "…", "started_from": null, "committed": true}'
        ) from None


def write_record(file: Path, record: JobRecord) -> None:
    """Remember a job in place of the one before."""
    if read_record(file) == record:
        return
    partial = file.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(record))
    partial.replace(file)


def savepoint_folder(manager: JobManager, shared_name: str) -> str:
    """Return the address of the folder for a home's savepoints.

    Raises:
        FlinkError: Flink is configured without a folder for them.
    """
    return f"{_configured(manager, _SAVEPOINTS)}/{shared_name}"


def newest_state(manager: JobManager, shared_name: str, record: JobRecord | None) -> str | None:
    """Return the address of what to start from, None where no job of this home has committed anything.

    Raises:
        StateLostError: a job has committed and nothing is left of it.
        FlinkError: Flink is configured without folders, or keeps them where this can't look.
    """
    if record is None:
        return None
    checkpoints = _local(f"{_configured(manager, _CHECKPOINTS)}/{record.job_id}")
    savepoints = _local(savepoint_folder(manager, shared_name))
    complete = [
        *checkpoints.glob(f"chk-*/{_COMPLETE}"),
        # Flink names a savepoint after the beginning of the job's id.
        *savepoints.glob(f"savepoint-{record.job_id[:6]}-*/{_COMPLETE}"),
    ]
    if complete:
        return max(complete, key=lambda file: file.stat().st_mtime_ns).parent.as_uri()
    if record.committed:
        raise StateLostError(
            f"the state of the streaming job {record.job_id} is in neither {checkpoints} nor {savepoints}: "
            "bring it back; or drop trades, quotes and book in Fluss, which the bridge fills again "
            "from where the archive ends, and remove flink_job.json from the home"
        )
    return record.started_from


def _configured(manager: JobManager, keys: tuple[str, ...]) -> str:
    configuration = manager.configuration()
    for key in keys:
        if configuration.get(key):
            return configuration[key].rstrip("/")
    raise FlinkError(f"Flink has no {keys[0]}: set it, or a stopped streaming job could never go on")


def _local(address: str) -> Path:
    parts = urlsplit(address)
    if parts.scheme not in ("", "file"):
        raise FlinkError(
            f"the state of a stopped job lies at {address}, where only Flink can look: keep its checkpoints "
            "and savepoints in a folder that this machine sees too"
        )
    return Path(unquote(parts.path))
