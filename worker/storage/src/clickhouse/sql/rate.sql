@SURVEY_ROW@
SELECT @GROUP@ AS group, bucket, made, 0, 0, 0, 0
FROM
(
    SELECT @ID@ @BUCKET@ AS bucket, sum(step) / ({interval:Int64} / 1000) AS made
    FROM
    (
        -- A step is the increase, or after a reset the new value; the first sample of a series ends none.
        SELECT
            @ID@ times,
            arrayMap((v, before) -> if(v < before, v, v - before), values, arrayShiftRight(values, 1, nan)) AS steps
        FROM @LINES@ AS lines
        @GROUPED@
    ) AS lines
    ARRAY JOIN times AS time, steps AS step
    WHERE time >= {start:Int64} AND NOT isNaN(step)
    GROUP BY @ID@ bucket
) AS cells
@NAMED@
@HAVING@
ORDER BY group, bucket
LIMIT {rows:UInt64}
