DELETE FROM @LOCAL(samples)@ @ON_CLUSTER@
WHERE tenant @OF_TENANTS@ {tenants:Array(String)} AND metric @OF_METRICS@ {metrics:Array(String)}
    AND toUnixTimestamp64Milli(ts) < toInt64({day:Int32}) * 86400000
