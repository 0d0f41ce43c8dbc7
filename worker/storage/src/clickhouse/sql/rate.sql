-- The first row tells of all samples (series, samples read), the others are the answer's.
WITH @SURVEY@ AS survey
SELECT
    true AS of_all, CAST([], 'Array(String)') AS names, toInt64(0) AS bucket, toFloat64(0) AS value,
    assumeNotNull(survey.1) AS samples, assumeNotNull(survey.2) AS scanned
UNION ALL
SELECT false, @GROUP@ AS group, bucket, sum(part) / ({interval:Int64} / 1000), 0, 0
FROM
(
    SELECT @SERIES@ @BUCKET@ AS bucket, sum(if(v < v_before, v, v - v_before)) AS part
    FROM
    (
        SELECT fp, time, v, lagInFrame(v, 1, nan) OVER line AS v_before
        FROM @SAMPLES@ AS latest
        WINDOW line AS (PARTITION BY fp ORDER BY time ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
    ) AS steps
    WHERE time >= {start:Int64} AND NOT isNaN(v_before)
    GROUP BY @SERIES@ bucket
) AS parts
@NAMED@
GROUP BY group, bucket
ORDER BY group, bucket
LIMIT {rows:UInt64}
