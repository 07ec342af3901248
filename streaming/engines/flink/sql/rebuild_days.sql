-- The candles of days in place of those that are there. Days without candles stay as they are.

INSERT OVERWRITE paimon.${namespace}.candles_1m
  /*+ OPTIONS('dynamic-partition-overwrite' = 'true', 'sink.parallelism' = '1', 'write-buffer-size' = '16 mb') */
SELECT * FROM candles;
