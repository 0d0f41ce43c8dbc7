-- Series per metric on days that aren't over, without those that this worker has under way.
SELECT toString(metric) AS name, uniqExact(fp) AS series
FROM series
WHERE tenant = {tenant:String} AND metric IN {metrics:Array(String)} AND NOT has({pending:Array(UInt64)}, fp)
    AND day >= toDate32({floor:Int32})
    AND toInt32(day) >= arrayElement({floors:Array(Int32)}, indexOf({metrics:Array(String)}, toString(metric)))
GROUP BY metric
