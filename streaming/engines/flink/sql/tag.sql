-- A snapshot under a name: it and its files stay until the name is removed.

USE CATALOG paimon;

CALL sys.create_tag(
  `table` => ${table},
  tag => ${tag},
  snapshot_id => CAST(${snapshot} AS BIGINT)
);
