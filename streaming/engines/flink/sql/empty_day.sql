-- A product's day of candles with nothing in it.

INSERT OVERWRITE paimon.${namespace}.${table}
  /*+ OPTIONS('dynamic-partition-overwrite' = 'false', 'sink.parallelism' = '1', 'write-buffer-size' = '1 mb') */
  PARTITION (`day` = ${day}, product = ${product})
SELECT
  `start`, `open`, high, low, `close`, volume, quote_volume, taker_buy_volume, taker_sell_volume, trade_count,
  first_trade_id, last_trade_id, is_complete, revision, source, exchange, recorded_at
FROM paimon.${namespace}.${table}
WHERE FALSE;
