SELECT toString(metric) AS name, '' AS value, uniqExact(fp) AS series
FROM series
WHERE @LIVING@ AND startsWith(metric, {prefix:String})
GROUP BY name
