"""Where everything lies under `LAKEHOUSE_HOME`.

Simulated data and an exchange's data never share a table: each namespace has its own log, hot store and
warehouses in a folder of its own. A home also remembers which feed was started last, so that
`lakehouse sql` and Dagster look at the data a person is working with.
"""

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from pydantic import SecretStr

from lakehouse.settings import Settings

Namespace = Literal["market", "simulated"]
Engine = Literal["embedded", "flink"]


class HomeError(Exception):
    """The home can't be used; the text says why and what to do."""


class LastRun(msgspec.Struct, frozen=True):
    """What was started last in a home."""

    feed: str
    namespace: Namespace
    products: tuple[str, ...]


@dataclass(frozen=True)
class Home:
    """The folders and files of one namespace; nothing is created by naming it."""

    root: Path
    namespace: Namespace
    catalog: SecretStr | Path | None = None
    """Iceberg's catalog as postgresql://user:password@host:port/database, or the file in which the native
    cluster leaves that when it starts; None: an SQLite file in here."""

    @property
    def folder(self) -> Path:
        """Everything of this namespace."""
        return self.root / self.namespace

    @property
    def spine(self) -> Path:
        """The log's database file."""
        return self.folder / "spine.db"

    @property
    def hot_store(self) -> Path:
        """The hot store's database file."""
        return self.folder / "hot.db"

    @property
    def iceberg(self) -> Path:
        """Iceberg's warehouse, and its catalog where that is an SQLite file."""
        return self.folder / "iceberg"

    @property
    def paimon(self) -> Path:
        """Paimon's warehouse."""
        return self.folder / "paimon"

    @property
    def shared_name(self) -> str:
        """What this namespace is called on a server that several homes may use, such as `market_1f0c9a3e`.

        A new home in the place of an old one has another name: what the server still holds of the old one
        has nothing to do with it.

        Raises:
            HomeError: the home was not made by `create`.
        """
        try:
            return f"{self.namespace}_{self._identity.read_text()}"
        except OSError as error:
            raise HomeError(
                f"{self.folder} has no identity ({error.strerror}): start `lakehouse up` first"
            ) from None

    @property
    def _identity(self) -> Path:
        return self.folder / "identity"

    @property
    def locks(self) -> Path:
        """One lock file for each table and worker."""
        return self.folder / "locks"

    @property
    def alerts(self) -> Path:
        """One file for each alert that was raised lately."""
        return self.folder / "alerts"

    @property
    def run(self) -> Path:
        """Process state: the supervisor's configuration and socket, the workers' metrics addresses."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """The workers' logs."""
        return self.root / "logs"

    def create(self) -> "Home":
        """Make the folders.

        Raises:
            HomeError: the folder can't be made or written.
        """
        try:
            for folder in (self.iceberg, self.paimon, self.locks, self.run, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
            _write_once(self._identity, secrets.token_hex(4))
        except OSError as error:
            raise HomeError(
                f"LAKEHOUSE_HOME {str(self.root)!r} can't be used ({error.strerror}): set it to a folder "
                "that may be written"
            ) from None
        return self

    def claim(self, engine: Engine) -> None:
        """Record which engine writes the tables here: the first one to come, for good.

        Each engine keeps account of what it has taken from the log in its own way, so a second one would
        write everything again beside the first.

        Raises:
            HomeError: another engine has written them; or the record can't be read or written.
        """
        first = self.settled("engine", engine)
        if first != engine:
            raise HomeError(
                f"the tables in {self.folder} are written by the {first} engine: set "
                f"LAKEHOUSE_ENGINE={first}, or use an empty LAKEHOUSE_HOME for {engine}"
            )

    def settled(self, what: str, text: str) -> str:
        """Record something of this home once and for all, and return what the first to come recorded.

        Args:
            what: name of the record, a file in the home.
            text: what to record where there is nothing yet.

        Raises:
            HomeError: the record can't be read or written.
        """
        record = self.folder / what
        try:
            _write_once(record, text)
            return record.read_text()
        except OSError as error:
            raise HomeError(
                f"{record} can't be used ({error.strerror}): make it readable and writable"
            ) from None

    def remember(self, run: LastRun) -> None:
        """Record what is being started."""
        target = self.root / "last_run.json"
        partial = target.with_suffix(f".{os.getpid()}")
        partial.write_bytes(msgspec.json.encode(run))
        partial.replace(target)


def _write_once(path: Path, text: str) -> None:
    """Write a small file where there is none, whoever of several processes comes first."""
    if path.exists():
        return
    partial = path.with_suffix(f".{secrets.token_hex(4)}")
    partial.write_text(text)
    with contextlib.suppress(FileExistsError):
        os.link(partial, path)
    partial.unlink()


def last_run(root: Path) -> LastRun | None:
    """Return what was started last in a home, None for a new one.

    Raises:
        HomeError: the record is damaged.
    """
    path = root / "last_run.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=LastRun)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise HomeError(f"{path} can't be read ({error}): delete it and start again") from None


def home_of(settings: Settings, *, namespace: Namespace | None = None) -> Home:
    """Return the home that readers look at.

    The namespace is the one given; else the chosen feed's where LAKEHOUSE_FEED was set; else that of the
    last run; else the simulation's.

    Raises:
        HomeError: the record of the last run is damaged.
    """
    root = settings.home.absolute()
    if namespace is None:
        if "feed" in settings.model_fields_set and settings.recording is None:
            namespace = "simulated" if settings.feed_kind == "simulated" else "market"
        else:
            run = last_run(root)
            namespace = run.namespace if run else "simulated"
    return Home(root, namespace, _catalog(settings, root))


def native_catalog(root: Path) -> Path:
    """Return the file in which the native cluster leaves its catalog's address for those who use it."""
    return root / "cluster" / "iceberg.catalog"


def _catalog(settings: Settings, root: Path) -> SecretStr | Path | None:
    if settings.iceberg_catalog is not None:
        return None if settings.iceberg_catalog.get_secret_value() == "sqlite" else settings.iceberg_catalog
    return None if settings.engine_kind == "embedded" else native_catalog(root)
