-- The tables as Flink sees them. A catalog lives as long as its session.

CREATE CATALOG paimon WITH (
  'type' = 'paimon',
  'warehouse' = ${paimon_warehouse}
);

-- Iceberg's. pyiceberg's SqlCatalog finds the same tables: rows there carry the catalog's name, which is the
-- namespace, and V1 is its layout.
CREATE CATALOG ${namespace} WITH (
  'type' = 'iceberg',
  'catalog-impl' = 'org.apache.iceberg.jdbc.JdbcCatalog',
  'uri' = ${iceberg_uri},
  'jdbc.user' = ${iceberg_user},
  'jdbc.password' = ${iceberg_password},
  'jdbc.schema-version' = 'V1',
  'warehouse' = ${iceberg_warehouse},
  'io-impl' = 'org.apache.iceberg.hadoop.HadoopFileIO',
  'cache-enabled' = 'false'
);
