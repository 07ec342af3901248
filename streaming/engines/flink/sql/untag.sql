-- A name is removed; what only its snapshot held is deleted.

USE CATALOG paimon;

CALL sys.delete_tag(
  `table` => ${table},
  tag => ${tag}
);
