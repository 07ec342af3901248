-- The one streaming job of a namespace: Fluss in, Iceberg and Paimon out, each row once.

SET 'execution.runtime-mode' = 'streaming';

SET 'pipeline.name' = ${job_name};

SET 'parallelism.default' = ${parallelism};

-- State is divided into this many parts. It must stay, or no savepoint could be taken over.
SET 'pipeline.max-parallelism' = '128';

-- Days and minutes are UTC's, whatever the machine says.
SET 'table.local-time-zone' = 'UTC';

-- Flink knows the parts of a job again by their places in it, and by which run in one thread with others. With
-- this the latter stays when the parallelism changes, as on the way from one writer to the one that commits.
-- (Ids made by the planner would not do: it counts on from whatever the gateway has planned before.)
SET 'pipeline.operator-chaining.chain-operators-with-different-max-parallelism' = 'false';

-- A checkpoint is a commit to the tables. What a job was cancelled with can be taken up again.
SET 'execution.checkpointing.interval' = ${checkpoint_interval};

SET 'execution.checkpointing.externalized-checkpoint-retention' = 'RETAIN_ON_CANCELLATION';

-- What the job remembers is small, a few KiB for each product and hour: it fits into the heap.
SET 'state.backend.type' = 'hashmap';

-- Rows go from one part of the job to the next as they are, not copied: none of the parts keeps or changes them.
SET 'pipeline.object-reuse' = 'true';

-- Rows are taken together, so that a candle is written once for thousands of its trades.
SET 'table.exec.mini-batch.enabled' = 'true';

SET 'table.exec.mini-batch.allow-latency' = '1 s';

SET 'table.exec.mini-batch.size' = '20000';

-- The two sinks of trades share one reader and one memory of what is known.
SET 'table.optimizer.reuse-optimize-block-with-digest-enabled' = 'true';

-- Every change of a candle goes one way, ordered by its key: nothing has to be put in order again.
SET 'table.exec.sink.upsert-materialize' = 'NONE';

-- The first row of each (product, trade_id), of each (spine_partition, spine_offset), of each level: the bridge
-- pushes rows again after a failure. Numbers that follow one another cost no state, so nothing is forgotten.
-- They are dealt out to eight, that products take all threads alike.
CREATE TEMPORARY FUNCTION first_seen AS 'lakehouse.FirstSeen';

CREATE TEMPORARY VIEW new_trades AS
SELECT *
FROM (
  SELECT
    *,
    first_seen(trade_id / 8, trade_id / 8 + 1)
      OVER (PARTITION BY product, MOD(trade_id, 8) ORDER BY taken_at) AS is_new
  FROM (
    SELECT *, PROCTIME() AS taken_at
    FROM fluss.${fluss_database}.trades /*+ OPTIONS('scan.startup.mode' = 'full') */
  )
)
WHERE is_new;

CREATE TEMPORARY VIEW new_quotes AS
SELECT *
FROM (
  SELECT
    *,
    first_seen(spine_offset / 8, spine_offset / 8 + 1)
      OVER (PARTITION BY spine_partition, MOD(spine_offset, 8) ORDER BY taken_at) AS is_new
  FROM (
    SELECT *, PROCTIME() AS taken_at
    FROM fluss.${fluss_database}.quotes /*+ OPTIONS('scan.startup.mode' = 'full') */
  )
)
WHERE is_new;

-- A message has up to 2^20 levels, one after the other; its last one stands for the numbers up to the next
-- message.
CREATE TEMPORARY VIEW new_book AS
SELECT *
FROM (
  SELECT
    *,
    first_seen(
      message * 1048576 + `level`,
      CASE WHEN `level` + 1 < levels THEN message * 1048576 + `level` + 1 ELSE (message + 1) * 1048576 END
    ) OVER (PARTITION BY spine_partition, MOD(spine_offset, 8) ORDER BY taken_at) AS is_new
  FROM (
    SELECT *, spine_offset / 8 AS message, PROCTIME() AS taken_at
    FROM fluss.${fluss_database}.book /*+ OPTIONS('scan.startup.mode' = 'full') */
  )
)
WHERE is_new;

-- Plain groups, not windows: a window would drop what is late. The feed has marked what came after the lateness
-- horizon; that waits for the seal of its day.
-- Open and close are the prices beside the lowest and the highest id: ids of one length sort as texts do.
CREATE TEMPORARY VIEW minutes AS
SELECT /*+ STATE_TTL('counted' = ${candles_known_for}) */
  product,
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
FROM (
  SELECT
    *,
    TIMESTAMPDIFF(MINUTE, TIMESTAMP '1970-01-01 00:00:00', CAST(event_time AS TIMESTAMP(3))) AS minute_number,
    LPAD(CAST(trade_id AS STRING), 19, '0') || ':' || CAST(price AS STRING) AS id_and_price
  FROM new_trades
  WHERE NOT too_late
) AS counted
GROUP BY product, minute_number;

-- Where the ids of one minute end and those of another begin without a step between. An id is in one minute
-- only, so a sum finds the one minute on either side of it.
CREATE TEMPORARY VIEW joints AS
SELECT /*+ STATE_TTL('sides' = ${candles_known_for}) */
  product,
  id,
  SUM(ending) AS ending,
  SUM(beginning) AS beginning
FROM (
  SELECT product, side.id, side.ending, side.beginning
  FROM minutes
  CROSS JOIN UNNEST(ARRAY[
    ROW(last_trade_id + 1, minute_number, 0),
    ROW(first_trade_id, 0, minute_number)
  ]) AS side (id, ending, beginning)
) AS sides
GROUP BY product, id
HAVING COUNT(*) = 2;

CREATE TEMPORARY VIEW neighbours AS
SELECT /*+ STATE_TTL('met' = ${candles_known_for}) */
  product,
  minute_number,
  COUNT(*) AS known
FROM (
  SELECT product, candle.minute_number
  FROM joints
  CROSS JOIN UNNEST(ARRAY[ending, beginning]) AS candle (minute_number)
) AS met
GROUP BY product, minute_number;

EXECUTE STATEMENT SET BEGIN
INSERT INTO ${namespace}.${namespace}.trades
SELECT product, `day`, trade_id, event_time, price, size, taker_side, late, source, exchange, received_at,
  recorded_at, spine_partition, spine_offset
FROM new_trades;
INSERT INTO ${namespace}.${namespace}.quotes
SELECT product, `day`, event_time, update_id, bid, bid_size, ask, ask_size, spread, mid, imbalance, source,
  exchange, received_at, recorded_at, spine_partition, spine_offset
FROM new_quotes;
INSERT INTO ${namespace}.${namespace}.book
SELECT product, `day`, event_time, kind, first_update_id, last_update_id, `level`, side, price, size, exchange,
  received_at, recorded_at, spine_partition, spine_offset
FROM new_book;
-- A candle is complete when its own ids have no step and a candle joins it on either side; ids begin at 1, so
-- before id 1 none has to. While a change goes through, a row is taken back and written again: the table never
-- sees the first of it, and a candle is never taken back for good.
INSERT INTO paimon.${namespace}.candles_1m /*+ OPTIONS(
  'sink.parallelism' = '1',
  'write-buffer-size' = '16 mb',
  'num-sorted-run.compaction-trigger' = '5',
  'snapshot.num-retained.min' = '16',
  'snapshot.num-retained.max' = '400',
  'snapshot.time-retained' = '30 min'
) */
SELECT /*+ STATE_TTL('candle' = ${candles_known_for}, 'neighbour' = ${candles_known_for}) */
  candle.product,
  CAST(candle.`start` AS DATE) AS `day`,
  CAST(candle.`start` AS TIMESTAMP_LTZ(6)) AS `start`,
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
  last_trade_id - first_trade_id + 1 = trade_count
    AND COALESCE(known, 0) + CASE WHEN first_trade_id = 1 THEN 1 ELSE 0 END = 2 AS is_complete,
  revision,
  'trades' AS source,
  exchange,
  recorded_at
FROM (
  SELECT *, TIMESTAMPADD(MINUTE, minute_number, TIMESTAMP '1970-01-01 00:00:00') AS `start` FROM minutes
) AS candle
LEFT JOIN neighbours AS neighbour
  ON candle.product = neighbour.product AND candle.minute_number = neighbour.minute_number;
END;
