-- The candles of one product's day, from its archived trades in one snapshot.

SET 'execution.runtime-mode' = 'batch';

SET 'pipeline.name' = ${job_name};

SET 'parallelism.default' = '1';

SET 'table.local-time-zone' = 'UTC';

CREATE TEMPORARY VIEW counted AS
SELECT
  *,
  TIMESTAMPDIFF(MINUTE, TIMESTAMP '1970-01-01 00:00:00', CAST(event_time AS TIMESTAMP(3))) AS minute_number,
  LPAD(CAST(trade_id AS STRING), 19, '0') || ':' || CAST(price AS STRING) AS id_and_price
FROM ${namespace}.${namespace}.trades /*+ OPTIONS('snapshot-id' = ${snapshot_id}) */
WHERE `day` = CAST(${day} AS DATE) AND product = ${product};

CREATE TEMPORARY VIEW minutes AS
SELECT
  minute_number,
  MIN(id_and_price) AS opening,
  MAX(price) AS high,
  MIN(price) AS low,
  MAX(id_and_price) AS closing,
  SUM(size) AS volume,
  SUM(price * size) AS quote_volume,
  SUM(CASE WHEN taker_side = 'buy' THEN size ELSE CAST(0 AS DECIMAL(18, 8)) END) AS taker_buy_volume,
  SUM(CASE WHEN taker_side = 'sell' THEN size ELSE CAST(0 AS DECIMAL(18, 8)) END) AS taker_sell_volume,
  COUNT(*) AS trade_count,
  MIN(trade_id) AS first_trade_id,
  MAX(trade_id) AS last_trade_id,
  SUM(CASE WHEN late THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END) AS revision,
  MAX(exchange) AS exchange,
  MAX(recorded_at) AS recorded_at
FROM counted
GROUP BY minute_number;

-- Ids without a step between them have one number less their rank in common: they are a run. The ids of other
-- days that are known to be right before and after this one's belong to it too.
CREATE TEMPORARY VIEW known AS
SELECT minute_number, trade_id, trade_id - DENSE_RANK() OVER (ORDER BY trade_id) AS run
FROM (
  SELECT minute_number, trade_id FROM counted
  UNION ALL
  SELECT CAST(NULL AS INT), edge
  FROM (VALUES (TRY_CAST(${edge} AS BIGINT)), (TRY_CAST(${other_edge} AS BIGINT))) AS edges (edge)
  WHERE edge IS NOT NULL
);

CREATE TEMPORARY VIEW runs AS
SELECT run, MIN(trade_id) AS first_id, MAX(trade_id) AS last_id FROM known GROUP BY run;

CREATE TEMPORARY VIEW runs_of_minutes AS
SELECT minute_number, MIN(run) AS first_run, MAX(run) AS last_run
FROM known
WHERE minute_number IS NOT NULL
GROUP BY minute_number;

-- A candle is complete when one run holds all ids from right before its first to right after its last; ids begin
-- at 1.
CREATE TEMPORARY VIEW candles AS
SELECT
  CAST(TIMESTAMPADD(MINUTE, candle.minute_number, TIMESTAMP '1970-01-01 00:00:00') AS TIMESTAMP_LTZ(6)) AS `start`,
  CAST(SUBSTRING(opening FROM 21) AS DECIMAL(18, 8)) AS `open`,
  high,
  low,
  CAST(SUBSTRING(closing FROM 21) AS DECIMAL(18, 8)) AS `close`,
  volume,
  quote_volume,
  taker_buy_volume,
  taker_sell_volume,
  trade_count,
  first_trade_id,
  last_trade_id,
  first_run = last_run
    AND first_id <= CASE WHEN first_trade_id > 1 THEN first_trade_id - 1 ELSE 1 END
    AND last_id > last_trade_id AS is_complete,
  revision,
  'trades' AS source,
  exchange,
  recorded_at
FROM minutes AS candle
JOIN runs_of_minutes ON candle.minute_number = runs_of_minutes.minute_number
JOIN runs ON runs.run = first_run;
