SELECT tenant, default_ms, mapKeys(metrics) AS names, mapValues(metrics) AS millis FROM retentions FINAL
