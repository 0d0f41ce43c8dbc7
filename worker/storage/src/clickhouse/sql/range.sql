-- The first row tells of all samples, the others are the answer's. What shares its time with the last of the
-- first samples comes along, since its series decides its place.
WITH @SURVEY@ AS survey
SELECT
    true AS of_all, toInt64(0) AS time, toFloat64(0) AS value,
    CAST([], 'Array(Tuple(String, String))') AS pairs, assumeNotNull(survey.1) AS series, assumeNotNull(survey.2) AS scanned
UNION ALL
SELECT
    false, time, v,
    CAST(arrayZip(mapKeys(described), mapValues(described)), 'Array(Tuple(String, String))') AS named_pairs,
    0, 0
FROM
(
    SELECT fp, time, v FROM @SAMPLES@ AS latest @HAVING_OF_SAMPLES@ ORDER BY time LIMIT {rows:UInt64} WITH TIES
) AS first
INNER JOIN
(
    SELECT fp, any(dimensions) AS described FROM series WHERE @PRESENT@ GROUP BY fp
) AS named USING (fp)
ORDER BY time, named_pairs
LIMIT {rows:UInt64}
