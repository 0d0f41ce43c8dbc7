-- The fingerprints of the series chosen, in the order of their dimensions.
SELECT fp
FROM (SELECT fp, any(dimensions) AS described FROM series WHERE @PRESENT@ GROUP BY fp)
ORDER BY CAST(arrayZip(mapKeys(described), mapValues(described)), 'Array(Tuple(String, String))')
