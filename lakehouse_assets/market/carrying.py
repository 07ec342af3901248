"""How a change goes downstream: what is made of a product-day that changed is made again."""

import dagster as dg

from lakehouse_assets.market.description import GROUP
from lakehouse_assets.operations.stream_topics import PREFIX as STREAM
from lakehouse_assets.partitions import CAUSE

# `eager` looks at the latest day only, but days are sealed, and sealed again, whenever they are due. And it
# would go on from a partition whose blocking checks failed in an earlier run. The stream's topics have no
# partitions: one that moves would be a change of every day.
CARRY_CHANGES = (
    (
        dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())
        & dg.AutomationCondition.all_deps_blocking_checks_passed()
    )
    .ignore(dg.AssetSelection.key_prefixes(STREAM, include_sources=True))
    .with_label("a changed and checked upstream partition")
)

# Of a day there are trades or the exchange's candles, seldom both: neither waits for the other. What isn't
# there has passed no check either, so what counts is that none has failed.
CARRY_EITHER = (
    (
        dg.AutomationCondition.eager()
        .without(dg.AutomationCondition.in_latest_time_window())
        .without(~dg.AutomationCondition.any_deps_missing())
        & ~dg.AutomationCondition.any_deps_match(
            dg.AutomationCondition.any_checks_match(dg.AutomationCondition.check_failed(), blocking_only=True)
        )
    )
    .ignore(dg.AssetSelection.key_prefixes(STREAM, include_sources=True))
    .with_label("a changed upstream partition, and no failed check of any")
)


def carrying_sensor() -> dg.AutomationConditionSensorDefinition:
    """Return the sensor that evaluates the conditions; without it they'd wait to be switched on by hand."""
    return dg.AutomationConditionSensorDefinition(
        "carry_changes_downstream",
        target=dg.AssetSelection.groups(GROUP),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        run_tags={CAUSE: "an upstream partition changed"},
        description=(
            "Makes again what is made of each product-day that changed and passed its checks: candles from "
            "trades or the exchange's own, hours, days and metrics from candles, liquidity from quotes."
        ),
    )
