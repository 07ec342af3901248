"""What every start does first: choose the namespace, make the folders, remember what runs."""

from lakehouse.home import Home, LastRun, Namespace
from lakehouse.market.trade import Exchange
from lakehouse.settings import Settings
from streaming.exchanges.recording import RecordingError, exchange_of


class PreparationError(Exception):
    """The feed can't be started as it is set; the text says why."""


def prepare(settings: Settings) -> Home:
    """Return the home these settings write to, made and remembered as the last run.

    Raises:
        PreparationError: the recording can't be read.
        HomeError: the folder can't be made.
    """
    home = Home(settings.home.absolute(), _namespace(settings)).create()
    products = settings.products if settings.recording else settings.chosen_products
    home.remember(LastRun(settings.feed, home.namespace, products))
    return home


def _namespace(settings: Settings) -> Namespace:
    if settings.recording is None:
        return "simulated" if settings.feed_kind == "simulated" else "market"
    try:
        exchange = exchange_of(settings.recording)
    except RecordingError as error:
        raise PreparationError(str(error)) from error
    return "simulated" if exchange is Exchange.SIMULATED else "market"
