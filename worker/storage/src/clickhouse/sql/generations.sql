SELECT tenant, sum(changes) FROM generations GROUP BY tenant
