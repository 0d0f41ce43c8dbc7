DELETE FROM @LOCAL(series)@ @ON_CLUSTER@
WHERE tenant @OF_TENANTS@ {tenants:Array(String)} AND metric @OF_METRICS@ {metrics:Array(String)} AND toInt32(day) < {day:Int32}
