"""A Dagster run of `trades` for one product-day in this process: python backfill_process.py KEY"""

import sys

import dagster as dg

from lakehouse_assets.definitions import build_defs

if __name__ == "__main__":
    with dg.DagsterInstance.ephemeral() as instance:
        build_defs().resolve_job_def("seal_days").execute_in_process(
            partition_key=sys.argv[1], instance=instance, asset_selection=[dg.AssetKey("trades")]
        )
