-- Days of candles as the exchange tells them, in place of those that are there: prices and volume, and nothing of
-- the single trades. Days that it tells nothing of stay as they are.

INSERT OVERWRITE paimon.${namespace}.candles_1m
  /*+ OPTIONS('dynamic-partition-overwrite' = 'true', 'sink.parallelism' = '1', 'write-buffer-size' = '16 mb') */
SELECT
  product,
  `day`,
  `start`,
  `open`,
  high,
  low,
  `close`,
  volume,
  CAST(NULL AS DECIMAL(38, 16)),
  CAST(NULL AS DECIMAL(38, 8)),
  CAST(NULL AS DECIMAL(38, 8)),
  CAST(NULL AS BIGINT),
  CAST(NULL AS BIGINT),
  CAST(NULL AS BIGINT),
  FALSE,
  CAST(0 AS BIGINT),
  'exchange',
  exchange,
  recorded_at
FROM ${namespace}.${namespace}.exchange_candles
WHERE `day` IN (${days}) AND product = ${product};
