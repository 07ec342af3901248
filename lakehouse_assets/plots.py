"""Plots for a person who looks at an asset: pictures in the metadata, small enough for Dagster's database."""

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
import pyarrow as pa

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS: Final = 64


def png(draw: "Callable[[Figure], None]") -> dg.MetadataValue[Any]:
    """Return a picture as metadata that Dagster shows.

    Args:
        draw: puts axes into an empty figure of 7 x 3 inches.
    """
    # Takes half a second: nothing else needs it, above all not the loading of the definitions.
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(7, 3), dpi=80, layout="constrained")
    draw(figure)
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    # A plot has few colours; with a palette it takes a third of the space.
    Image.open(drawn).convert("RGB").quantize(_COLOURS).save(small, format="png", optimize=True)
    encoded = base64.b64encode(small.getvalue()).decode()
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{encoded})")


def candles_plot(title: str, candles: pa.Table) -> dg.MetadataValue[Any]:
    """Return a day's prices, range and volume.

    Args:
        title: what is shown.
        candles: rows of a table of candles, in any order.
    """
    rows = candles.sort_by("start")
    start = rows["start"].to_pylist()
    low, high, close, volume = (
        rows[name].cast(pa.float64()).to_numpy() for name in ("low", "high", "close", "volume")
    )

    def draw(figure: "Figure") -> None:
        prices, volumes = figure.subplots(2, sharex=True, height_ratios=[3, 1])
        prices.fill_between(start, low, high, step="post", alpha=0.3, linewidth=0, label="low to high")
        prices.step(start, close, where="post", linewidth=0.8, label="close")
        prices.set_title(title, fontsize=9)
        prices.legend(fontsize=7)
        volumes.fill_between(start, 0, volume, step="post", linewidth=0)
        volumes.set_ylabel("volume", fontsize=7)
        _small(figure)

    return png(draw)


def metrics_plot(product: str, rows: pa.Table) -> dg.MetadataValue[Any]:
    """Return a product's closes and volatility until a day.

    Args:
        product: whose.
        rows: rows of `metrics_daily`, ordered by day.
    """
    days = rows["day"].to_pylist()

    def draw(figure: "Figure") -> None:
        closes, risk = figure.subplots(2, sharex=True)
        closes.plot(
            days, rows["close"].cast(pa.float64()).to_numpy(), linewidth=0.9, marker=".", markersize=3
        )
        closes.set_title(
            f"{product} until {days[-1] if days else 'now'}: close and annualised volatility", fontsize=9
        )
        for name in ("realised_volatility", "volatility_30d", "volatility_90d"):
            risk.plot(days, rows[name].to_numpy(), linewidth=0.9, marker=".", markersize=3, label=name)
        risk.legend(fontsize=7)
        _small(figure)

    return png(draw)


def breaks_plot(product: str, rows: pa.Table) -> dg.MetadataValue[Any]:
    """Return a product's breaks by class, of the newest 30 days that have any.

    Args:
        product: whose.
        rows: rows of `reconciliation`, in any order.
    """
    counts = rows.group_by(["day", "kind"]).aggregate([("expected", "count")]).to_pylist()
    days = sorted({row["day"] for row in counts})[-30:]

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        below = dict.fromkeys(days, 0)
        for kind in sorted({row["kind"] for row in counts}):
            of_kind = {row["day"]: row["expected_count"] for row in counts if row["kind"] == kind}
            heights = [of_kind.get(day, 0) for day in days]
            axes.bar([f"{day:%m-%d}" for day in days], heights, bottom=list(below.values()), label=kind)
            below = {day: below[day] + of_kind.get(day, 0) for day in days}
        axes.set_title(f"{product}: breaks by day" if days else f"{product}: no breaks", fontsize=9)
        if days:
            axes.legend(fontsize=7)
        _small(figure)

    return png(draw)


def _small(figure: "Figure") -> None:
    for axes in figure.axes:
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
