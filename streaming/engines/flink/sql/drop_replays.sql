-- A product's day without the candles of some replays.

INSERT OVERWRITE paimon.${namespace}.replay_candles_1m
  /*+ OPTIONS('dynamic-partition-overwrite' = 'false', 'sink.parallelism' = '1', 'write-buffer-size' = '16 mb') */
  PARTITION (`day` = ${day}, product = ${product})
SELECT
  replay_id, `start`, `open`, high, low, `close`, volume, quote_volume, taker_buy_volume, taker_sell_volume,
  trade_count, first_trade_id, last_trade_id, is_complete, revision, source, exchange, recorded_at,
  trades_snapshot_id, replayed_at
FROM paimon.${namespace}.replay_candles_1m
WHERE `day` = CAST(${day} AS DATE) AND product = ${product} AND POSITION(replay_id IN ${gone}) = 0;
