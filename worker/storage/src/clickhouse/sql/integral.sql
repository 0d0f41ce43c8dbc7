@SURVEY_ROW@
-- Each sample with the segment that ends in it, once for each bucket that the segment reaches; its last
-- bucket, or its only one, is the sample's own.
SELECT @GROUP@ AS group, bucket, made, n, 0, 0, 0
FROM
(
    WITH
        @LEFT@ AS left, @RIGHT@ AS right,
        (left - before) / (time - before) AS left_share, (right - before) / (time - before) AS right_share,
        v_before * (1 - left_share) + v * left_share AS v_left,
        v_before * (1 - right_share) + v * right_share AS v_right
    SELECT
        @ID@ bucket, countIf(bucket = own) AS n,
        sum(if(joined, (v_left / 2 + v_right / 2) * ((right - left) / 1000), 0)) AS made
    FROM
    (
        SELECT
            @ID@ time, v, before, v_before, @BUCKET@ AS own,
            NOT isNaN(v_before) AND time - before <= {max_gap:Int64} AS joined,
            arrayJoin(@BUCKETS@) AS bucket
        FROM
        (
            SELECT
                @ID@ times, values,
                arrayShiftRight(times, 1) AS times_before, arrayShiftRight(values, 1, nan) AS values_before
            FROM @LINES@ AS lines
            @GROUPED@
        ) AS lines
        ARRAY JOIN times AS time, values AS v, times_before AS before, values_before AS v_before
    ) AS pieces
    GROUP BY @ID@ bucket
) AS cells
@NAMED@
@HAVING@
ORDER BY group, bucket
LIMIT {rows:UInt64}
