"""Settings: one typed object, and one clear sentence for a wrong value."""

import re
from pathlib import Path

import pytest

from lakehouse.settings import USD_PRODUCTS, Settings, SettingsError, load_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"LAKEHOUSE_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)


def test_without_any_setting_the_feed_is_simulated_with_six_products() -> None:
    settings = load_settings()
    assert settings.feed_kind == "simulated"
    assert settings.chosen_products == USD_PRODUCTS
    assert settings.host == "127.0.0.1"


def test_variables_win_over_the_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("LAKEHOUSE_PRODUCTS=BTC-USD, ETH-USD\nLAKEHOUSE_FEED=coinbase\n")
    monkeypatch.setenv("LAKEHOUSE_FEED", "binance")
    settings = load_settings()
    assert settings.feed == "binance"
    assert settings.chosen_products == ("BTC-USD", "ETH-USD")


def test_binance_is_asked_for_usdt_products_by_default() -> None:
    assert load_settings(feed="binance").chosen_products[0] == "BTC-USDT"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("feed", "kraken", "LAKEHOUSE_FEED: 'kraken' is none of simulated, coinbase, binance"),
        ("feed", "recording:", "LAKEHOUSE_FEED: 'recording:' is none of"),
        ("products", "../x", "LAKEHOUSE_PRODUCTS: '../x' is not a product: write BASE-QUOTE"),
        ("products", "BTC-USD,BTC-USD", "LAKEHOUSE_PRODUCTS: a product is listed twice"),
        ("simulated_rate", "fast", "LAKEHOUSE_SIMULATED_RATE: Input should be a valid number"),
        ("spine_partitions", "0", "LAKEHOUSE_SPINE_PARTITIONS: Input should be greater than or equal to 1"),
        ("profile", "clutser", "LAKEHOUSE_PROFILE: Input should be 'embedded'"),
    ],
)
def test_a_wrong_value_is_one_sentence(
    name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"LAKEHOUSE_{name.upper()}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_the_example_lists_every_setting_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    listed = dict(re.findall(r"^# (LAKEHOUSE_\w+)=(.*)$", "\n".join(lines), re.MULTILINE))
    assert set(listed) == {f"LAKEHOUSE_{name.upper()}" for name in Settings.model_fields}
    Path(".env").write_text("\n".join(f"{name}={value}" for name, value in listed.items()))
    assert load_settings().model_dump() == Settings.model_construct().model_dump()
