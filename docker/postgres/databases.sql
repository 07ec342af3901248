-- Run once, by the image, on an empty volume. Iceberg's database is the image's own (POSTGRES_DB).
CREATE DATABASE dagster;
