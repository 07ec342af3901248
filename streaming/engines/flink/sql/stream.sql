-- Fluss, the streaming job's source, as Flink sees it.

CREATE CATALOG fluss WITH (
  'type' = 'fluss',
  'bootstrap.servers' = ${fluss_address}
);
