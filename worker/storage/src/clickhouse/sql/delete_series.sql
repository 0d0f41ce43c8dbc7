DELETE FROM @LOCAL(series)@ @ON_CLUSTER@
WHERE tenant = {tenant:String} AND metric = {metric:String} AND toInt32(day) < {day:Int32} AND generation < {generation:UInt64}
