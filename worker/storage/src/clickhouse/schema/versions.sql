-- Which versions of the schema this database has seen.
CREATE TABLE IF NOT EXISTS @LOCAL(schema_versions)@ @ON_CLUSTER@
(
    version UInt32,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = @ENGINE(ReplacingMergeTree)@
ORDER BY version
SETTINGS @DURABLE@;
