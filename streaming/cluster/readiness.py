"""Whether a process is ready, asked at its port."""

import socket
from urllib.parse import urlsplit

import httpx
import psycopg2

from streaming.cluster.definition import Definition
from streaming.cluster.place import Place

_SECONDS = 2.0
"""Longest wait for one answer."""


def is_ready(name: str, definition: Definition, place: Place) -> bool:
    """Ask a process whether it is ready, in the way that its definition names.

    - `tcp`: the port is open;
    - `ruok`: ZooKeeper says imok;
    - `registered PATH`: the port is open and ZooKeeper holds the ephemeral node;
    - `http PATH`: the answer is 200;
    - `taskmanager`: the JobManager, whose port it is, has one;
    - `postgres`: it answers in its own protocol, if only that it wants a password.
    """
    process = definition.process[name]
    how, _, argument = process.ready.partition(" ")
    own = (place.hosts[name], place.ports[process.port])
    match how:
        case "tcp":
            return _tells(own, b"") is not None
        case "ruok":
            return _tells(own, b"ruok") == "imok"
        case "registered":
            zookeeper = (place.hosts["zookeeper"], place.ports["zookeeper"])
            nodes = (_tells(zookeeper, b"dump") or "").split()
            return argument in nodes and _tells(own, b"") is not None
        case "http":
            return _json(own, argument) is not None
        case "taskmanager":
            manager = (place.hosts["flink-jobmanager"], own[1])
            overview = _json(manager, "/overview")
            return overview is not None and int(str(overview["taskmanagers"])) > 0
        case "postgres":
            return _postgres_answers(*own)
    raise ValueError(f"{name} is ready by {how!r}, which is no way of asking")


def _tells(address: tuple[str, int], question: bytes) -> str | None:
    """Return what a server says to a question until it closes; empty without one; None where none answers."""
    try:
        with socket.create_connection(address, _SECONDS) as connection:
            if not question:
                return ""
            connection.sendall(question)
            answer = b""
            while part := connection.recv(65536):
                answer += part
            return answer.decode()
    except OSError:
        return None


def _json(address: tuple[str, int], path: str) -> dict[str, object] | None:
    url = f"http://{address[0]}:{address[1]}{path}"
    assert urlsplit(url).path == path
    try:
        answer = httpx.get(url, timeout=_SECONDS, trust_env=False)
        found = answer.json() if answer.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _postgres_answers(host: str, port: int) -> bool:
    try:
        psycopg2.connect(host=host, port=port, user="nobody", connect_timeout=2, sslmode="disable").close()
    except psycopg2.OperationalError as error:
        text = str(error)
        return "password" in text or "no pg_hba.conf entry" in text
    return True
