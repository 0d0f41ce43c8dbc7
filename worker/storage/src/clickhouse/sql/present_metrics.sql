-- A tenant's metrics, and the last day of each.
SELECT toString(metric) AS name, max(toInt32(day)) AS last
FROM series
WHERE tenant = {tenant:String} AND toInt32(day) >= {floor:Int32}
GROUP BY metric
