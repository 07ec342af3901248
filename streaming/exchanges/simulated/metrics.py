"""The simulated exchange's metrics for Prometheus, read off it when they are asked for."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lakehouse.market.time import SECOND_US
from streaming.exchanges.simulated.server import SimulatedExchange


class ExchangeCollector(Collector):
    """Clients, time, trades and injected faults of a running exchange."""

    def __init__(self, exchange: SimulatedExchange) -> None:
        self._exchange = exchange

    def describe(self) -> list[Metric]:
        """Return nothing: there is nothing to be read before the exchange runs."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the figures as they are now."""
        stream, faults = self._exchange.stream, self._exchange.faults
        yield GaugeMetricFamily(
            "lakehouse_exchange_clients", "Clients that are connected.", stream.client_count
        )
        yield GaugeMetricFamily(
            "lakehouse_exchange_time_seconds",
            "The exchange's own time, Unix time.",
            stream.position_us / SECOND_US,
        )
        trades = CounterMetricFamily(
            "lakehouse_exchange_trades", "Trades since the market's first day.", labels=["product"]
        )
        for product in stream.products:
            trades.add_metric([product], stream.last_trade_id(product))
        yield trades
        injected = CounterMetricFamily(
            "lakehouse_exchange_faults", "Faults that were injected on purpose.", labels=["kind"]
        )
        for kind, count in faults.injected_total.items():
            injected.add_metric([kind], count)
        yield injected
