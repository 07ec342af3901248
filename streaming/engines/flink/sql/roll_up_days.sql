-- The hours or days of some days of one product from their minutes, in place of those that are there.

-- Minutes that the exchange alone tells have no ids: they follow one another by their number.
CREATE TEMPORARY VIEW minutes AS
SELECT
  *,
  minute_number / CAST(${minutes} AS INT) AS interval_number,
  LPAD(CAST(COALESCE(first_trade_id, minute_number) AS STRING), 19, '0') || ':' || CAST(`open` AS STRING)
    AS id_and_open,
  LPAD(CAST(COALESCE(last_trade_id, minute_number) AS STRING), 19, '0') || ':' || CAST(`close` AS STRING)
    AS id_and_close
FROM (
  SELECT *, TIMESTAMPDIFF(MINUTE, TIMESTAMP '1970-01-01 00:00:00', CAST(`start` AS TIMESTAMP(3))) AS minute_number
  FROM paimon.${namespace}.candles_1m
  WHERE `day` IN (${days}) AND product = ${product}
);

-- A sum is unknown where a part of it is.
CREATE TEMPORARY VIEW intervals AS
SELECT
  `day`,
  interval_number,
  MIN(id_and_open) AS opening,
  MAX(high) AS high,
  MIN(low) AS low,
  MAX(id_and_close) AS closing,
  SUM(volume) AS volume,
  CASE WHEN COUNT(quote_volume) = COUNT(*) THEN SUM(quote_volume) END AS quote_volume,
  CASE WHEN COUNT(taker_buy_volume) = COUNT(*) THEN SUM(taker_buy_volume) END AS taker_buy_volume,
  CASE WHEN COUNT(taker_sell_volume) = COUNT(*) THEN SUM(taker_sell_volume) END AS taker_sell_volume,
  CASE WHEN COUNT(trade_count) = COUNT(*) THEN SUM(trade_count) END AS trade_count,
  CASE WHEN COUNT(first_trade_id) = COUNT(*) THEN MIN(first_trade_id) END AS first_trade_id,
  CASE WHEN COUNT(last_trade_id) = COUNT(*) THEN MAX(last_trade_id) END AS last_trade_id,
  COUNT(*) AS minutes_there,
  SUM(revision) AS revision,
  MIN(COALESCE(source, 'trades')) AS source,
  MAX(exchange) AS exchange,
  MAX(recorded_at) AS recorded_at
FROM minutes
GROUP BY `day`, interval_number;

-- A complete minute knows the ids from right before its first to right after its last. Minutes whose known ids
-- touch are a run, whichever interval of the day they are in.
CREATE TEMPORARY VIEW runs AS
SELECT interval_number, SUM(begins) OVER (PARTITION BY `day` ORDER BY first_trade_id) AS run
FROM (
  SELECT
    `day`,
    interval_number,
    first_trade_id,
    CASE
      WHEN first_trade_id > LAG(reached) OVER (PARTITION BY `day` ORDER BY first_trade_id) + 3 THEN 1
      ELSE 0
    END AS begins
  FROM (
    SELECT
      `day`,
      interval_number,
      first_trade_id,
      MAX(last_trade_id) OVER (PARTITION BY `day` ORDER BY first_trade_id) AS reached
    FROM minutes
    WHERE is_complete
  )
);

CREATE TEMPORARY VIEW runs_of_intervals AS
SELECT interval_number, COUNT(*) AS complete_minutes, MIN(run) AS first_run, MAX(run) AS last_run
FROM runs
GROUP BY interval_number;

-- An interval is complete when all its minutes are, and lie in one run. Days without minutes stay as they are.
INSERT OVERWRITE paimon.${namespace}.${table}
  /*+ OPTIONS('dynamic-partition-overwrite' = 'true', 'sink.parallelism' = '1', 'write-buffer-size' = '16 mb') */
SELECT
  ${product},
  `day`,
  CAST(
    TIMESTAMPADD(MINUTE, longer.interval_number * CAST(${minutes} AS INT), TIMESTAMP '1970-01-01 00:00:00')
    AS TIMESTAMP_LTZ(6)
  ),
  CAST(SUBSTRING(opening FROM 21) AS DECIMAL(18, 8)),
  high,
  low,
  CAST(SUBSTRING(closing FROM 21) AS DECIMAL(18, 8)),
  volume,
  quote_volume,
  taker_buy_volume,
  taker_sell_volume,
  trade_count,
  first_trade_id,
  last_trade_id,
  COALESCE(complete_minutes = minutes_there AND first_run = last_run, FALSE),
  revision,
  source,
  exchange,
  recorded_at
FROM intervals AS longer
LEFT JOIN runs_of_intervals ON longer.interval_number = runs_of_intervals.interval_number;
