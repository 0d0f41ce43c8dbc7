@SURVEY_ROW@
SELECT @GROUP@ AS group, bucket, made, n, 0, 0, 0
FROM
(
    SELECT @ID@ @BUCKET@ AS bucket, @MADE@ AS made, count() AS n
    FROM @SAMPLES@ AS latest
    @GROUPED@
    GROUP BY @ID@ bucket
) AS cells
@NAMED@
@HAVING@
ORDER BY group, bucket
LIMIT {rows:UInt64}
