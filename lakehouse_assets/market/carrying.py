"""How a change goes downstream: what is made of a product-day that changed is made again."""

import dagster as dg
from dagster import AutomationCondition

from lakehouse_assets.market.description import GROUP
from lakehouse_assets.operations.stream_topics import TABLES, topic_key
from lakehouse_assets.partitions import CAUSE

# The stream's topics have no partitions: one that moves would be a change of every day.
_TOPICS = dg.AssetSelection.assets(*map(topic_key, TABLES))
_NO_DEP_IS_MISSING = ~AutomationCondition.any_deps_missing().ignore(_TOPICS)
_OWED_AT_FIRST = AutomationCondition.initial_evaluation() & AutomationCondition.missing() & _NO_DEP_IS_MISSING
_CHANGED = (_OWED_AT_FIRST | AutomationCondition.any_deps_updated().ignore(_TOPICS)).since(
    AutomationCondition.newly_requested() | AutomationCondition.newly_updated()
)

# Dagster's `eager` would pass over much of it. It looks at the latest day only, but days are sealed, and
# sealed again, whenever they are due. It forgets what was there before it was first evaluated, such as the
# days that the first start fetches. And it goes on from a partition whose blocking checks failed in an
# earlier run.
CARRY_CHANGES = (
    _CHANGED
    & _NO_DEP_IS_MISSING
    & ~AutomationCondition.any_deps_in_progress().ignore(_TOPICS)
    & ~AutomationCondition.in_progress()
    & AutomationCondition.all_deps_blocking_checks_passed().ignore(_TOPICS)
).with_label("a changed and checked upstream partition")


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
            "trades, hours, days and metrics from candles, liquidity from quotes."
        ),
    )
