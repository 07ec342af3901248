-- Old days of a Paimon table into one file each. The streaming job merges the files of the day that it writes.

SET 'table.dml-sync' = 'false';

USE CATALOG paimon;

CALL sys.compact(
  `table` => ${table},
  options => 'sink.parallelism=1',
  partition_idle_time => ${idle},
  compact_strategy => 'full'
);
