"""How a change goes downstream: what is made of a product-day that changed is made again."""

import dagster as dg
from dagster import AutomationCondition

from lakehouse_assets.market.description import GROUP
from lakehouse_assets.operations.stream_topics import TABLES, topic_key
from lakehouse_assets.partitions import CAUSE

# The stream's topics have no partitions: one that moves would be a change of every day.
_TOPICS = dg.AssetSelection.assets(*map(topic_key, TABLES))
_NO_DEP_IS_MISSING = ~AutomationCondition.any_deps_missing().ignore(_TOPICS)


def _changed(there: AutomationCondition[dg.AssetKey]) -> AutomationCondition[dg.AssetKey]:
    """Return the condition that upstream changed since, or was `there` before this was first evaluated."""
    owed_at_first = AutomationCondition.initial_evaluation() & AutomationCondition.missing() & there
    return (owed_at_first | AutomationCondition.any_deps_updated().ignore(_TOPICS)).since(
        AutomationCondition.newly_requested() | AutomationCondition.newly_updated()
    )


# Dagster's `eager` would pass over much of it. It looks at the latest day only, but days are sealed, and
# sealed again, whenever they are due. It forgets what was there before it was first evaluated, such as the
# days that the first start fetches. And it goes on from a partition whose blocking checks failed in an
# earlier run.
CARRY_CHANGES = (
    _changed(_NO_DEP_IS_MISSING)
    & _NO_DEP_IS_MISSING
    & ~AutomationCondition.any_deps_in_progress().ignore(_TOPICS)
    & ~AutomationCondition.in_progress()
    & AutomationCondition.all_deps_blocking_checks_passed().ignore(_TOPICS)
).with_label("a changed and checked upstream partition")

# Of a day there are trades or the exchange's candles, seldom both: neither waits for the other. What isn't
# there has passed no check either, so what counts is that none has failed.
_FAILED = AutomationCondition.any_checks_match(AutomationCondition.check_failed(), blocking_only=True)
CARRY_EITHER = (
    _changed(AutomationCondition.any_deps_match(~AutomationCondition.missing()).ignore(_TOPICS))
    & ~AutomationCondition.any_deps_in_progress().ignore(_TOPICS)
    & ~AutomationCondition.in_progress()
    & ~AutomationCondition.any_deps_match(_FAILED).ignore(_TOPICS)
).with_label("one of two upstream partitions changed, and neither is wrong")


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
