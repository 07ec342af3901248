-- The hours or days of one product's day from its minutes, in place of those that are there.

SET 'execution.runtime-mode' = 'batch';

SET 'pipeline.name' = ${job_name};

SET 'parallelism.default' = '1';

SET 'table.local-time-zone' = 'UTC';

CREATE TEMPORARY VIEW minutes AS
SELECT
  *,
  TIMESTAMPDIFF(MINUTE, TIMESTAMP '1970-01-01 00:00:00', CAST(`start` AS TIMESTAMP(3)))
    / CAST(${minutes} AS INT) AS interval_number,
  LPAD(CAST(first_trade_id AS STRING), 19, '0') || ':' || CAST(`open` AS STRING) AS id_and_open,
  LPAD(CAST(last_trade_id AS STRING), 19, '0') || ':' || CAST(`close` AS STRING) AS id_and_close
FROM paimon.${namespace}.candles_1m
WHERE `day` = CAST(${day} AS DATE) AND product = ${product};

CREATE TEMPORARY VIEW intervals AS
SELECT
  interval_number,
  MIN(id_and_open) AS opening,
  MAX(high) AS high,
  MIN(low) AS low,
  MAX(id_and_close) AS closing,
  SUM(volume) AS volume,
  SUM(quote_volume) AS quote_volume,
  SUM(taker_buy_volume) AS taker_buy_volume,
  SUM(taker_sell_volume) AS taker_sell_volume,
  SUM(trade_count) AS trade_count,
  MIN(first_trade_id) AS first_trade_id,
  MAX(last_trade_id) AS last_trade_id,
  COUNT(*) AS minutes_there,
  SUM(revision) AS revision,
  MIN(COALESCE(source, 'trades')) AS source,
  MAX(exchange) AS exchange,
  MAX(recorded_at) AS recorded_at
FROM minutes
GROUP BY interval_number;

-- A complete minute knows the ids from right before its first to right after its last. Minutes whose known ids
-- touch are a run, whichever interval they are in.
CREATE TEMPORARY VIEW runs AS
SELECT interval_number, SUM(begins) OVER (ORDER BY first_trade_id) AS run
FROM (
  SELECT
    interval_number,
    first_trade_id,
    CASE WHEN first_trade_id > LAG(reached) OVER (ORDER BY first_trade_id) + 3 THEN 1 ELSE 0 END AS begins
  FROM (
    SELECT
      interval_number,
      first_trade_id,
      MAX(last_trade_id) OVER (ORDER BY first_trade_id) AS reached
    FROM minutes
    WHERE is_complete
  )
);

CREATE TEMPORARY VIEW runs_of_intervals AS
SELECT interval_number, COUNT(*) AS complete_minutes, MIN(run) AS first_run, MAX(run) AS last_run
FROM runs
GROUP BY interval_number;

-- An interval is complete when all its minutes are, and lie in one run. No rows empty the partition.
INSERT OVERWRITE paimon.${namespace}.${table}
  /*+ OPTIONS('dynamic-partition-overwrite' = 'false', 'sink.parallelism' = '1', 'write-buffer-size' = '16 mb') */
  PARTITION (`day` = ${day}, product = ${product})
SELECT
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
