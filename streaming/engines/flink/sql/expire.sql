-- Snapshots that nobody reads any more, and the files that only they name. Tagged ones stay.

USE CATALOG paimon;

CALL sys.expire_snapshots(
  `table` => ${table},
  retain_min => CAST(${keep} AS INT),
  older_than => ${older_than}
);
