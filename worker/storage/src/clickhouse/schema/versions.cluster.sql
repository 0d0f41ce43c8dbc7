CREATE TABLE IF NOT EXISTS schema_versions @ON_CLUSTER@ AS schema_versions_local
ENGINE = Distributed(@CLUSTER@, currentDatabase(), schema_versions_local, version);
