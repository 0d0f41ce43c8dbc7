SELECT count()
FROM series
WHERE tenant @OF_TENANTS@ {tenants:Array(String)} AND metric @OF_METRICS@ {metrics:Array(String)} AND toInt32(day) < {day:Int32}
