"""The servers that the tiers need, where `lakehouse up` runs them on this machine."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from lakehouse.home import Home
from lakehouse.settings import Settings
from streaming.cluster.definition import load
from streaming.cluster.iggy import HOW_TO_GET
from streaming.cluster.place import LOOPBACK
from streaming.cluster.runner import Cluster

_ANSWER_SECONDS = 2.0


@contextmanager
def servers(settings: Settings, home: Home, say: Callable[[str], None]) -> Iterator[Settings]:
    """Run what the tiers need for the block, and give the settings that hold then.

    A cluster that runs already is used and left running; servers on other machines are used as they are.
    Where the profile alone asks for Iggy and nobody answers, the log of a new home is the embedded one, and
    it is said.

    Raises:
        ClusterError: it can't be started.
        HomeError: the home can't be read.
    """
    settings = _with_a_log(settings, home, say)
    if settings.hot_store_kind == "sqlite" or not _is_here(settings):
        yield settings
        return
    cluster = Cluster(settings)
    is_ours = not cluster.status()
    say("Starting the cluster …" if is_ours else "The cluster runs already.")
    seconds = cluster.up(say)
    if is_ours:
        say(f"The cluster is ready after {seconds:.0f} s.")
    try:
        yield settings
    finally:
        if is_ours:
            say("Stopping the cluster …")
            cluster.down()


def _with_a_log(settings: Settings, home: Home, say: Callable[[str], None]) -> Settings:
    if settings.spine_kind == "sqlite" or settings.spine is not None or settings.iggy_binary:
        return settings
    place = urlsplit(f"//{settings.iggy_address}")
    try:
        socket.create_connection((place.hostname or "", place.port or 0), _ANSWER_SECONDS).close()
    except (OSError, ValueError):
        if home.settled("log", "sqlite") != "sqlite":
            return settings
        say(HOW_TO_GET.format(image=load().images["iggy"]))
        return settings.model_copy(update={"spine": "sqlite"})
    return settings


def _is_here(settings: Settings) -> bool:
    return urlsplit(f"//{settings.fluss_address}").hostname in LOOPBACK
