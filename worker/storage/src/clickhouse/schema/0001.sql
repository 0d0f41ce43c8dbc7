-- Version 1. A statement ends with a semicolon at the end of a line. Words between two at signs are filled in
-- by schema.rs, for one server or for a cluster.

CREATE TABLE IF NOT EXISTS @LOCAL(samples)@ @ON_CLUSTER@
(
    tenant LowCardinality(String),
    metric LowCardinality(String),
    fp UInt64 CODEC(ZSTD(1)),
    ts DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    v Float64 CODEC(@VALUE_CODEC@)
)
ENGINE = @ENGINE(ReplacingMergeTree)@
PARTITION BY toYYYYMMDD(ts)
ORDER BY (tenant, metric, fp, ts)
-- Granules of half the usual size: what filters read shrinks with them, what inserts cost grows (ARCHITECTURE.md).
SETTINGS index_granularity = 4096, @DURABLE@, @DEDUPLICATION@ @LEAN@;

CREATE TABLE IF NOT EXISTS @LOCAL(series)@ @ON_CLUSTER@
(
    tenant LowCardinality(String),
    metric LowCardinality(String),
    fp UInt64 CODEC(ZSTD(1)),
    day Date32,
    -- The tenant's generation when the row was written: a delete takes the rows of older ones only.
    generation UInt64 CODEC(ZSTD(1)),
    dimensions Map(LowCardinality(String), String),
    pairs Array(String) MATERIALIZED arrayMap((key, value) -> concat(key, '=', value), mapKeys(dimensions), mapValues(dimensions)),
    INDEX pairs pairs TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = @ENGINE(ReplacingMergeTree, generation)@
PARTITION BY toYYYYMMDD(day)
ORDER BY (tenant, metric, fp, day)
-- A filter that chooses one series reads one granule of long rows.
SETTINGS index_granularity = 1024, @DURABLE@, @DEDUPLICATION@ @LEAN@;

-- Grows by one with each delete and each change of retention: what workers look at each second.
CREATE TABLE IF NOT EXISTS @LOCAL(generations)@ @ON_CLUSTER@
(
    tenant String,
    changes UInt64
)
ENGINE = @ENGINE(SummingMergeTree)@
ORDER BY tenant
SETTINGS @DURABLE@;

CREATE TABLE IF NOT EXISTS @LOCAL(retentions)@ @ON_CLUSTER@
(
    tenant String,
    default_ms Int64,
    metrics Map(String, Int64),
    version UInt64
)
ENGINE = @ENGINE(ReplacingMergeTree, version)@
ORDER BY tenant
SETTINGS @DURABLE@;

-- Samples that a worker has accepted on a day, so far.
CREATE TABLE IF NOT EXISTS @LOCAL(accepted)@ @ON_CLUSTER@
(
    tenant String,
    day Date32,
    worker String,
    samples UInt64
)
ENGINE = @ENGINE(ReplacingMergeTree, samples)@
ORDER BY (tenant, day, worker)
SETTINGS @DURABLE@;

-- Who does what only one worker should do at a time.
CREATE TABLE IF NOT EXISTS @LOCAL(leases)@ @ON_CLUSTER@
(
    task String,
    worker String,
    until_ms Int64
)
ENGINE = @ENGINE(ReplacingMergeTree, until_ms)@
ORDER BY (task, worker)
SETTINGS @DURABLE@;
