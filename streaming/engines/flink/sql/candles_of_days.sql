-- The candles of some days of one product, from their archived trades in one snapshot.

CREATE TEMPORARY VIEW counted AS
SELECT
  *,
  TIMESTAMPDIFF(MINUTE, TIMESTAMP '1970-01-01 00:00:00', CAST(event_time AS TIMESTAMP(3))) AS minute_number,
  LPAD(CAST(trade_id AS STRING), 19, '0') || ':' || CAST(price AS STRING) AS id_and_price
FROM ${namespace}.${namespace}.trades /*+ OPTIONS('snapshot-id' = ${snapshot_id}) */
WHERE `day` IN (${days}) AND product = ${product};

CREATE TEMPORARY VIEW minutes AS
SELECT
  `day`,
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
GROUP BY `day`, minute_number;

-- Ids of a day without a step between them have one number less their rank in common: they are a run. The ids of
-- other days that are known to be right before and after a day's belong to its runs too.
CREATE TEMPORARY VIEW known AS
SELECT
  `day`,
  minute_number,
  trade_id,
  trade_id - DENSE_RANK() OVER (PARTITION BY `day` ORDER BY trade_id) AS run
FROM (
  SELECT `day`, minute_number, trade_id FROM counted
  UNION ALL
  SELECT `day`, CAST(NULL AS INT), CAST(edge AS BIGINT) FROM (VALUES ${edges}) AS edges (`day`, edge) WHERE edge > 0
);

CREATE TEMPORARY VIEW runs AS
SELECT `day`, run, MIN(trade_id) AS first_id, MAX(trade_id) AS last_id FROM known GROUP BY `day`, run;

CREATE TEMPORARY VIEW runs_of_minutes AS
SELECT minute_number, MIN(run) AS first_run, MAX(run) AS last_run
FROM known
WHERE minute_number IS NOT NULL
GROUP BY minute_number;

-- A candle is complete when one run of its day holds all ids from right before its first to right after its last;
-- ids begin at 1.
CREATE TEMPORARY VIEW candles AS
SELECT
  CAST(${product} AS STRING) AS product,
  candle.`day`,
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
JOIN runs ON runs.`day` = candle.`day` AND runs.run = first_run;
