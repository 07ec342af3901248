"""The Dagster UI of `lakehouse up`, in headless Chromium: what a person sees, and what clicks do."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from browser import open_page
from free_ports import free_ports
from playwright.sync_api import Page, expect
from running_up import Platform, eventually

from lakehouse.home import home_of
from lakehouse.settings import load_settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import TABLES, TRADES

PRODUCTS = ("BTC-USD", "ETH-USD")
pytestmark = pytest.mark.timeout(900)

RUN_MS = 180_000
"""How long a run may take on a machine that does other things besides: most of it is starting a process."""


def past(days: int) -> date:
    return datetime.now(UTC).date() - timedelta(days=days)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """`lakehouse up` with Dagster and one past day of two products, at some trades a minute."""
    websocket_port, rest_port, dagster_port = free_ports(3)
    settings = {
        "products": ",".join(PRODUCTS),
        "simulated_websocket_port": str(websocket_port),
        "simulated_rest_port": str(rest_port),
        "simulated_rate": "0.1",
        "dagster_port": str(dagster_port),
        "metrics_port": "0",
        "backfill_days": "1",
    }
    running = Platform(tmp_path_factory.mktemp("ui"), settings, dagster=True)
    eventually(lambda: answers(address(running)), seconds=120)
    eventually(lambda: sealed_days(running, past(1)) == len(PRODUCTS), seconds=120)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def page(platform: Platform) -> Iterator[Page]:
    with open_page() as opened:
        yield opened


def address(platform: Platform) -> str:
    return f"http://127.0.0.1:{platform.settings['dagster_port']}"


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/server_info", timeout=5).is_success
    except httpx.HTTPError:
        return False


def sealed_days(platform: Platform, *days: date) -> int:
    """How many product-days have trades, which only a seal brings to past ones, and candles of the same."""
    wanted = ", ".join(f"DATE '{day}'" for day in days)
    return platform.count(
        "SELECT count(*) FROM (SELECT product, day, count(*) AS trades FROM trades "
        f"WHERE day IN ({wanted}) GROUP BY ALL) JOIN (SELECT product, day, sum(trade_count) AS trades "
        f"FROM candles_1m WHERE day IN ({wanted}) GROUP BY ALL) USING (product, day, trades)"
    )


def launch(page: Page, platform: Platform, asset: str, days: str, *products: str) -> None:
    """Materialize partitions of an asset as a person does, on its page."""
    page.goto(f"{address(platform)}/assets/{asset}?view=partitions")
    page.get_by_role("button", name="Materialize…").click()
    dialog = page.get_by_role("dialog").first
    dialog.get_by_placeholder("ex: 20").fill(days)
    dialog.get_by_placeholder("ex: 20").press("Tab")
    dialog.get_by_text("Select a partition or create one").click()
    for product in products:
        page.locator(f"text={product} >> visible=true").last.click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name=re.compile("^Launch (1 run|backfill)$")).click()
    expect(page.get_by_text("Launch runs to materialize")).to_be_hidden(timeout=60_000)


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("market/lineage", ("trades", "quotes", "candles_1m", "candles_1d", "metrics_daily", "liquidity")),
        ("operations/list", ("reconciliation",)),
        ("replay/lineage", ("replay_candles_1m",)),
    ],
)
def test_the_graph_shows_every_table_of_a_group(
    page: Page, platform: Platform, group: str, names: tuple[str, ...]
) -> None:
    page.goto(f"{address(platform)}/locations/lakehouse/asset-groups/{group}")
    for name in names:
        assert name in TABLES
        expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=60_000)


def test_a_partition_is_materialized_by_clicks(page: Page, platform: Platform) -> None:
    day = past(2)
    launch(page, platform, "trades", day.isoformat(), "ETH-USD")
    page.goto(f"{address(platform)}/assets/trades?view=partitions&default_range={day}")
    expect(page.get_by_text("Materialized (3)")).to_be_visible(timeout=RUN_MS)


def test_a_backfill_of_several_product_days_is_launched_by_clicks_and_ends_green(
    page: Page, platform: Platform
) -> None:
    first, last = past(5), past(4)
    launch(page, platform, "trades", f"[{first}...{last}]", *PRODUCTS)
    page.goto(f"{address(platform)}/runs?view=backfills")
    rows = page.locator("div[class*=RunsFeedRow_rowGrid]").filter(has_text="4 partitions")
    row = rows.filter(has_text="Manually launched")  # what is made of these days is launched by itself
    expect(row).to_contain_text("Success", timeout=2 * RUN_MS)


def test_a_check_that_fails_says_what_to_do(page: Page, platform: Platform) -> None:
    day = past(1)
    damage(platform.folder / "data", "BTC-USD", day)
    launch(page, platform, "trades", day.isoformat(), "BTC-USD")
    page.goto(f"{address(platform)}/assets/trades?view=checks&checkDetail=no_duplicate_trades")
    expect(page.get_by_text("Failed").first).to_be_visible(timeout=RUN_MS)
    said = page.get_by_text(f"BTC-USD on {day}: The archive holds a trade twice").first
    expect(said).to_be_visible()
    expect(said).to_contain_text("roll the table back to the snapshot before it")


def test_candles_follow_by_themselves_whatever_was_clicked(platform: Platform) -> None:
    # The day materialized alone, and those of the backfill. They come last: nobody has to wait for each.
    days = (past(2), past(4), past(5))
    eventually(lambda: sealed_days(platform, *days) == 1 + 2 * len(PRODUCTS), seconds=RUN_MS / 1000)


def damage(root: Path, product: str, day: date) -> None:
    """Archive a trade a second time, as only a program that isn't ours would."""
    settings = load_settings(home=root, feed="simulated")
    with IcebergStore.open(home_of(settings).create()) as store:
        store.append(TRADES, store.scan(TRADES, product=product, day=day).slice(0, 1))
