-- The candles of a day in place of those that are there; no rows empty the partition.

INSERT OVERWRITE paimon.${namespace}.candles_1m
  /*+ OPTIONS('dynamic-partition-overwrite' = 'false', 'sink.parallelism' = '1', 'write-buffer-size' = '16 mb') */
  PARTITION (`day` = ${day}, product = ${product})
SELECT * FROM candles;
