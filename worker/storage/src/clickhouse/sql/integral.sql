-- The first row tells of all samples (series, samples read), the others are the answer's.
-- Each sample with the segment that ends in it, once for each bucket that the segment reaches; its last
-- bucket, or its only one, is the sample's own.
WITH @SURVEY@ AS survey
SELECT
    true AS of_all, CAST([], 'Array(String)') AS names, toInt64(0) AS bucket, toFloat64(0) AS value,
    assumeNotNull(survey.1) AS samples, assumeNotNull(survey.2) AS scanned
UNION ALL
SELECT false, @GROUP@ AS group, bucket, sum(part), sum(n), 0
FROM
(
    WITH
        @LEFT@ AS left, @RIGHT@ AS right,
        (left - before) / (time - before) AS left_share, (right - before) / (time - before) AS right_share,
        v_before * (1 - left_share) + v * left_share AS v_left,
        v_before * (1 - right_share) + v * right_share AS v_right
    SELECT
        @SERIES@ bucket, countIf(bucket = own) AS n,
        sum(if(joined, (v_left / 2 + v_right / 2) * ((right - left) / 1000), 0)) AS part
    FROM
    (
        SELECT
            fp, time, v, before, v_before, @BUCKET@ AS own,
            NOT isNaN(v_before) AND time - before <= {max_gap:Int64} AS joined,
            arrayJoin(@BUCKETS@) AS bucket
        FROM
        (
            SELECT
                fp, time, v,
                lagInFrame(time, 1, toInt64(0)) OVER line AS before, lagInFrame(v, 1, nan) OVER line AS v_before
            FROM @SAMPLES@ AS latest
            WINDOW line AS (PARTITION BY fp ORDER BY time ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
        ) AS segments
    ) AS pieces
    GROUP BY @SERIES@ bucket
) AS parts
@NAMED@
GROUP BY group, bucket
ORDER BY group, bucket
LIMIT {rows:UInt64}
