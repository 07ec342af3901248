-- Files that no snapshot names, left by jobs that were killed. Younger ones may wait for their commit.

SET 'table.local-time-zone' = 'UTC';

USE CATALOG paimon;

CALL sys.remove_orphan_files(
  `table` => ${table},
  older_than => ${older_than},
  mode => 'local'
);
