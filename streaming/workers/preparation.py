"""What every start does first: choose the namespace, make the folders, remember what runs."""

from lakehouse.home import Home, LastRun, home_of
from lakehouse.settings import Settings
from streaming.exchanges.recording import RecordingError
from streaming.workers.feed import namespace_of


class PreparationError(Exception):
    """The feed can't be started as it is set; the text says why."""


def prepare(settings: Settings) -> Home:
    """Return the home these settings write to, made and remembered as the last run.

    Raises:
        PreparationError: the recording can't be read.
        HomeError: the folder can't be made, or another engine writes the tables there.
    """
    try:
        home = home_of(settings, namespace=namespace_of(settings)).create()
    except RecordingError as error:
        raise PreparationError(str(error)) from error
    home.claim(settings.engine_kind)
    products = settings.products if settings.recording else settings.chosen_products
    home.remember(LastRun(settings.feed, home.namespace, products))
    return home
