SELECT fp, any(arrayMap(key -> dimensions[key], {keys:Array(String)})) AS names
FROM series
WHERE @PRESENT@
GROUP BY fp
