-- What each series is called by, after all that can be done without it.
INNER JOIN
(
    SELECT fp, any(arrayMap(key -> dimensions[key], {keys:Array(String)})) AS names
    FROM series
    WHERE @PRESENT@
    GROUP BY fp
) AS named USING (fp)
