-- The fingerprints of the series chosen, in the order of their dimensions.
SELECT fp
FROM (SELECT fp, any(dimensions) AS dimensions FROM series WHERE @PRESENT@ GROUP BY fp)
ORDER BY CAST(arrayZip(mapKeys(dimensions), mapValues(dimensions)), 'Array(Tuple(String, String))')
