-- The first row tells of all samples (series, samples read), the others are the answer's.
-- Of halves, so that the difference of two values doesn't overflow.
WITH @SURVEY@ AS survey
SELECT
    true AS of_all, CAST([], 'Array(String)') AS names, toInt64(0) AS bucket, toFloat64(0) AS value,
    assumeNotNull(survey.1) AS samples, assumeNotNull(survey.2) AS scanned
UNION ALL
SELECT false, @GROUP@ AS group, bucket, 2 * quantileExactInclusive(@LEVEL@)(v / 2), count(), 0
FROM
(
    SELECT @SERIES@ @BUCKET@ AS bucket, v FROM @SAMPLES@ AS latest
) AS parts
@NAMED@
GROUP BY group, bucket
ORDER BY group, bucket
LIMIT {rows:UInt64}
