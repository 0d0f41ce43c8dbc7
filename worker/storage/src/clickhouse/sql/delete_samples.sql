DELETE FROM @LOCAL(samples)@ @ON_CLUSTER@
WHERE tenant = {tenant:String} AND metric = {metric:String} AND toUnixTimestamp64Milli(ts) < {before:Int64}
