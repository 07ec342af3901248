"""Every setting, one typed object, read once at the edge of a process.

Settings come from `LAKEHOUSE_*` variables, then `.env` in the current folder, then the defaults here.
`.env.example` lists all of them; a test holds the two together.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from lakehouse.market.product import InvalidProductError, checked_product

USD_PRODUCTS = ("BTC-USD", "ETH-USD", "SOL-USD", "DOGE-USD", "AVAX-USD", "LINK-USD")
USDT_PRODUCTS = tuple(product + "T" for product in USD_PRODUCTS)

FeedKind = Literal["simulated", "coinbase", "binance", "recording"]


class SettingsError(Exception):
    """A setting is wrong. The text is one sentence that names the variable and what it takes."""


class Settings(BaseSettings):
    """All settings. Build it with `load_settings`, which turns a wrong value into one sentence."""

    model_config = SettingsConfigDict(
        env_prefix="LAKEHOUSE_", env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True
    )

    home: Path = Field(Path(".lakehouse"), description="Folder that holds all data.")
    feed: str = Field(
        "simulated", description="Where market data comes from: simulated, coinbase, binance, recording:PATH."
    )
    products: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Products, separated by commas. Empty: six common ones, or all a recording holds."
    )
    profile: Literal["embedded", "cluster"] = Field(
        "embedded",
        description="Which implementation each tier has: embedded needs no server, cluster takes Iggy, "
        "Fluss and Flink.",
    )
    spine: Literal["sqlite", "iggy"] | None = Field(
        None, description="The log: sqlite or iggy. Empty: the profile's."
    )
    hot_store: Literal["sqlite", "fluss"] | None = Field(
        None, description="The hot store: sqlite or fluss. Empty: the profile's."
    )
    engine: Literal["embedded", "flink"] | None = Field(
        None,
        description="What makes the tables: embedded or flink (which reads fluss). Empty: the profile's.",
    )
    host: str = Field("127.0.0.1", description="Address everything listens on.")

    simulated_host: str = Field(
        "", description="Where the feed finds the simulation. Empty: the address everything listens on."
    )
    simulated_seed: int = Field(7, ge=0, description="The simulated market is a function of this number.")
    simulated_rate: float = Field(
        8.0, gt=0, le=200_000, description="Trades a second, all products together, on average."
    )
    simulated_speed: float = Field(
        1.0, gt=0, le=100_000, description="How many simulated seconds pass in a second."
    )
    simulated_faults: str = Field(
        "", description="Seeded plan of faults, such as 'gap:0.001,disconnect:0.0001' (chance a message)."
    )
    simulated_rest_rate: float = Field(
        200.0, ge=1, le=100_000, description="REST requests a second that it allows; Coinbase allows 10."
    )
    simulated_websocket_port: int = Field(9310, ge=0, le=65535, description="WebSocket of the simulation.")
    simulated_rest_port: int = Field(9311, ge=0, le=65535, description="REST of the simulation.")

    coinbase_websocket_url: str = Field("wss://ws-feed.exchange.coinbase.com", description="Coinbase's feed.")
    coinbase_rest_url: str = Field("https://api.exchange.coinbase.com", description="Coinbase's REST.")
    binance_websocket_url: str = Field("wss://stream.binance.com:9443", description="Binance's streams.")
    binance_rest_url: str = Field("https://api.binance.com", description="Binance's REST.")

    spine_partitions: int = Field(3, ge=1, le=64, description="Partitions of each topic.")
    spine_retention_hours: float = Field(48.0, gt=0, description="Age at which read messages are dropped.")
    spine_retention_mib: int = Field(
        2048, ge=1, description="Size of a partition above which read messages are dropped."
    )

    iggy_address: str = Field("127.0.0.1:8090", description="Iggy's TCP address.")
    iggy_username: str = Field("iggy", description="User that may create streams and topics in Iggy.")
    iggy_password: SecretStr = Field(SecretStr("iggy"), description="That user's password.")
    iggy_timeout_seconds: float = Field(10.0, gt=0, description="Longest wait for one answer of Iggy.")
    iggy_allow_weak_topics: bool = Field(
        False,
        description="Run on topics whose acknowledgement means memory only: a crash of Iggy loses data.",
    )
    fluss_address: str = Field("127.0.0.1:9123", description="Fluss's coordinator.")
    fluss_replicas: int = Field(3, ge=1, le=16, description="Replicas of each Fluss table.")
    fluss_timeout_seconds: float = Field(
        10.0,
        gt=0,
        description="Longest wait for one acknowledgement of Fluss; after it a new connection is made.",
    )
    flink_url: str = Field("http://127.0.0.1:8081", description="REST interface of Flink's JobManager.")
    flink_gateway_url: str = Field("http://127.0.0.1:8083", description="Flink's SQL gateway.")
    flink_parallelism: int = Field(2, ge=1, le=128, description="Parallelism of the streaming job.")
    flink_checkpoint_seconds: float = Field(
        5.0,
        ge=0.5,
        le=600,
        description="Time between the streaming job's checkpoints, which are its commits.",
    )
    iceberg_catalog: SecretStr | None = Field(
        None,
        description="Iceberg's catalog as postgresql://user:password@host:port/database. Empty: the native "
        "cluster's PostgreSQL with the flink engine, else an SQLite file in the home.",
    )
    cluster_jars: Path | None = Field(
        None, description="Folder that keeps the cluster's Java parts. Empty: cluster/jars in the home."
    )
    cluster_ports: str = Field(
        "",
        description="Ports of the native cluster that no address above sets, such as "
        "'postgres=5434,zookeeper=2183'.",
    )
    iggy_binary: Path | None = Field(
        None, description="Iggy's server program, for the native cluster to start it. Empty: it starts none."
    )

    flush_interval_ms: int = Field(
        5, ge=1, le=1000, description="Longest time a message waits in the feed before it is made durable."
    )
    commit_interval_ms: int = Field(2000, ge=10, le=60_000, description="Time between commits to the tables.")
    lateness_minutes: int = Field(
        10, ge=1, le=1440, description="How late a trade may be and still change its live candle."
    )
    hot_window_minutes: int = Field(60, ge=1, le=1440, description="How much the hot store keeps.")
    watchdog_seconds: float = Field(
        10.0, gt=0, description="Silence on the socket after which the feed connects anew."
    )
    alert_webhook_url: SecretStr | None = Field(
        None,
        description="Address that alerts are posted to as JSON (docs/operations.md). Empty: they are only "
        "logged.",
    )
    alert_gap_minutes: int = Field(
        30, ge=1, le=10_080, description="How long trades may be missing before an alert and another fetch."
    )
    alert_refused_inputs: int = Field(
        100, ge=1, le=10**9, description="Inputs refused on one day after each of which an alert is sent."
    )
    metrics_port: int = Field(
        9320, ge=0, le=65000, description="First port of the workers' metrics; each takes the next (0: any)."
    )
    dagster_port: int = Field(3000, ge=0, le=65535, description="Port of the Dagster UI.")
    backfill_days: int = Field(
        2, ge=0, le=365, description="Past days that `lakehouse up` fetches for a simulated feed."
    )

    @field_validator("products", mode="before")
    @classmethod
    def _split_products(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("products")
    @classmethod
    def _check_products(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            checked = tuple(checked_product(product) for product in value)
        except InvalidProductError as error:
            raise ValueError(str(error)) from None
        if len(set(checked)) != len(checked):
            raise ValueError("a product is listed twice")
        return checked

    @field_validator("alert_webhook_url")
    @classmethod
    def _check_webhook(cls, value: SecretStr | None) -> SecretStr | None:
        # Nothing of it in the message: its path is the token.
        if value is not None and not value.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("it takes an address that starts with https:// or http://")
        return value

    @field_validator("feed")
    @classmethod
    def _check_feed(cls, value: str) -> str:
        kind, _, path = value.partition(":")
        if value not in ("simulated", "coinbase", "binance") and not (kind == "recording" and path):
            raise ValueError(f"{value[:60]!r} is none of simulated, coinbase, binance, recording:PATH")
        return value

    @model_validator(mode="after")
    def _check_tiers(self) -> Self:
        if self.engine_kind == "flink" and self.hot_store_kind != "fluss":
            raise ValueError("flink reads what fluss holds: LAKEHOUSE_HOT_STORE=fluss is needed with it")
        return self

    @property
    def spine_kind(self) -> Literal["sqlite", "iggy"]:
        """Which log is used."""
        return self.spine or ("iggy" if self.profile == "cluster" else "sqlite")

    @property
    def hot_store_kind(self) -> Literal["sqlite", "fluss"]:
        """Which hot store is used."""
        return self.hot_store or ("fluss" if self.profile == "cluster" else "sqlite")

    @property
    def engine_kind(self) -> Literal["embedded", "flink"]:
        """What makes the tables."""
        return self.engine or ("flink" if self.profile == "cluster" else "embedded")

    @property
    def feed_kind(self) -> FeedKind:
        """What kind of feed is chosen."""
        return self.feed.partition(":")[0]  # type: ignore[return-value]  # checked above

    @property
    def recording(self) -> Path | None:
        """The recording to read, None for a live feed."""
        return Path(self.feed.partition(":")[2]) if self.feed_kind == "recording" else None

    @property
    def chosen_products(self) -> tuple[str, ...]:
        """The products of a live feed: those set, or six common ones in the exchange's currency."""
        return self.products or (USDT_PRODUCTS if self.feed_kind == "binance" else USD_PRODUCTS)


def load_settings(**overrides: object) -> Settings:
    """Read the settings; keyword arguments win over the environment.

    Raises:
        SettingsError: a value is wrong; one sentence for each.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        sentences = [
            f"LAKEHOUSE_{str((*problem['loc'], 'engine')[0]).upper()}: "
            f"{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        ]
        raise SettingsError("; ".join(sentences)) from None
