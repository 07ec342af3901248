from pathlib import Path

import dagster as dg
import pytest
from watched_world import World

from lakehouse_assets.resources import Lakehouse


@pytest.fixture
def world(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    tables: Lakehouse,
    lakehouse_settings: Path,
) -> World:
    return World(defs, instance, tables)
