-- As chosen_series.sql, with the dimensions of each.
SELECT fp, CAST(arrayZip(mapKeys(dimensions), mapValues(dimensions)), 'Array(Tuple(String, String))') AS pairs
FROM (SELECT fp, dimensions FROM series WHERE @PRESENT@ LIMIT 1 BY fp LIMIT {fews:UInt64})
