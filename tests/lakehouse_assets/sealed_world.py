"""Where the tests of the assets take place: two products, one day that is over, and the day after it."""

from datetime import date, timedelta

from lakehouse.market.time import HOUR_US, day_start_us
from lakehouse_assets.partitions import product_day_key

PRODUCTS = ("BTC-USD", "ETH-USD")
BTC = "BTC-USD"
DAY = date(2025, 6, 10)
NEXT_DAY = DAY + timedelta(days=1)
EXCHANGE_NOW_US = day_start_us(NEXT_DAY) + HOUR_US
KEY = product_day_key(BTC, DAY)
LIVE_KEY = product_day_key(BTC, NEXT_DAY)
