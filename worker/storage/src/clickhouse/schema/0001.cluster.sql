-- What queries and inserts name in a cluster. A series' samples lie on the shard of its own row, so that
-- each shard answers for its series without asking another.

CREATE TABLE IF NOT EXISTS samples @ON_CLUSTER@ AS samples_local
ENGINE = Distributed(@CLUSTER@, currentDatabase(), samples_local, cityHash64(tenant, fp));

CREATE TABLE IF NOT EXISTS series @ON_CLUSTER@ AS series_local
ENGINE = Distributed(@CLUSTER@, currentDatabase(), series_local, cityHash64(tenant, fp));

CREATE TABLE IF NOT EXISTS generations @ON_CLUSTER@ AS generations_local
ENGINE = Distributed(@CLUSTER@, currentDatabase(), generations_local, cityHash64(tenant));

CREATE TABLE IF NOT EXISTS retentions @ON_CLUSTER@ AS retentions_local
ENGINE = Distributed(@CLUSTER@, currentDatabase(), retentions_local, cityHash64(tenant));

CREATE TABLE IF NOT EXISTS accepted @ON_CLUSTER@ AS accepted_local
ENGINE = Distributed(@CLUSTER@, currentDatabase(), accepted_local, cityHash64(tenant));

CREATE TABLE IF NOT EXISTS leases @ON_CLUSTER@ AS leases_local
ENGINE = Distributed(@CLUSTER@, currentDatabase(), leases_local, cityHash64(task));
