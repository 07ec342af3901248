"""PostgreSQL for the native cluster: a server of our own in the cluster's folder, and its databases.

It holds Iceberg's catalog (and Dagster's runs, in containers). Its password is made at the first start and
kept in a file that only its owner may read.
"""

import os
import pwd
import secrets
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import psycopg2
from psycopg2 import sql
from pydantic import SecretStr

from lakehouse.home import native_catalog
from streaming.cluster.configuration import Launch
from streaming.cluster.definition import ClusterError, MissingProgramError
from streaming.cluster.place import Place

USER = "lakehouse"
DATABASES = ("iceberg", "dagster")
"""What exists in it after `create_databases`."""

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "logging_collector": "off",
}


def postgres_launch(place: Place) -> Launch:
    """Make the database's folder where there is none, and return how the server is started.

    PostgreSQL doesn't run as root: then the account `postgres`, or `nobody`, runs it.

    Raises:
        MissingProgramError: it isn't installed.
        ClusterError: that account can't reach the folder, or the database can't be made.
    """
    initdb, server = _program("initdb"), _program("postgres")
    folder = place.data("postgres")
    account = _account()
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data"
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
        _check_reach(folder, account)
    folder.chmod(0o700)
    if not (data / "PG_VERSION").exists():
        shutil.rmtree(data, ignore_errors=True)  # what an interrupted first start left
        _initialise(initdb, data, _password(place), account)
    settings = _SETTINGS | {"port": str(place.ports["postgres"])}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command = (str(server), "-D", str(data), *options)
    user = account.pw_name if account else None
    # SIGINT ends its clients' connections; at SIGTERM it would wait for them.
    return Launch("postgres", command, user=user, folder=Path("/"), stop_signal="INT")


def address(place: Place, database: str) -> SecretStr:
    """Return a database's address with its password: postgresql://user:password@host:port/database."""
    password = quote(_password(place).get_secret_value())
    where = f"{place.hosts['postgres']}:{place.ports['postgres']}"
    return SecretStr(f"postgresql://{USER}:{password}@{where}/{database}")


def leave_address(place: Place) -> None:
    """Write the address of Iceberg's catalog where those who use it look for it."""
    file = native_catalog(place.root.parent)
    file.touch(mode=0o600)
    file.write_text(address(place, "iceberg").get_secret_value())


def create_database(place: Place, name: str) -> None:
    """Make a database where it is absent.

    Raises:
        ClusterError: the server refuses.
    """
    try:
        connection = psycopg2.connect(address(place, "postgres").get_secret_value(), connect_timeout=5)
    except psycopg2.OperationalError as error:
        said = (str(error).strip().splitlines() or ["no reason"])[0]
        raise ClusterError(f"the cluster's PostgreSQL refuses its own user: {said}") from None
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    finally:
        connection.close()


def _program(name: str) -> Path:
    """Return a program of PostgreSQL: Debian keeps the server's outside of the PATH."""
    found = shutil.which(name)
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: path.parts[4])
    if not found and not versions:
        raise MissingProgramError(
            f"PostgreSQL's {name} was not found: install it (apt-get install postgresql), or set "
            "LAKEHOUSE_ICEBERG_CATALOG to the address of a server"
        )
    return Path(found) if found else versions[-1]


def _account() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ClusterError(
        "PostgreSQL doesn't run as root, and there is no account postgres or nobody to run it as"
    )


def _check_reach(folder: Path, account: pwd.struct_passwd) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'cd "$0"', str(folder)],
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
    )
    if done.returncode:
        raise ClusterError(
            f"PostgreSQL doesn't run as root, and the account {account.pw_name} can't enter {folder}: "
            "set LAKEHOUSE_HOME to a folder that others may enter, or LAKEHOUSE_ICEBERG_CATALOG to the "
            "address of a server"
        )


def _initialise(initdb: Path, data: Path, password: SecretStr, account: pwd.struct_passwd | None) -> None:
    file = data.with_name("password")
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    if account is not None:
        os.chown(file, account.pw_uid, account.pw_gid)
    file.write_text(password.get_secret_value() + "\n")
    options = [f"--pgdata={data}", f"--username={USER}", "--auth=scram-sha-256", f"--pwfile={file}"]
    options += ["--encoding=UTF8", "--locale=C", "--no-instructions"]
    try:
        done = subprocess.run(
            [initdb, *options],
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            cwd="/",
            capture_output=True,
            text=True,
        )
    finally:
        file.unlink()
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        raise ClusterError(f"PostgreSQL's database can't be made in {data}: {said}")


def _password(place: Place) -> SecretStr:
    file = place.root / "postgres.password"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(24))
    return SecretStr(file.read_text())
