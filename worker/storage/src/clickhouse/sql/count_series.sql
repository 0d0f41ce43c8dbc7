-- Series per metric on days that aren't over, without those that this worker has under way.
SELECT toString(metric) AS name, uniqExact(fp) AS series
FROM series
WHERE tenant = {tenant:String} AND metric IN {metrics:Array(String)} AND fp NOT IN {pending:Array(UInt64)}
    AND toInt32(day) >= {floor:Int32}
GROUP BY metric
