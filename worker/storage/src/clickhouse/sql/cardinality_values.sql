-- A row per key, where the value is absent, and one per key and value.
SELECT toString(key) AS name, value, count() AS series
FROM
(
    SELECT fp, any(dimensions) AS dimensions
    FROM series
    WHERE @LIVING@ AND metric = {metric:String}
    GROUP BY fp
)
ARRAY JOIN mapKeys(dimensions) AS key, mapValues(dimensions) AS value
WHERE startsWith(key, {prefix:String})
GROUP BY GROUPING SETS ((name), (name, value))
