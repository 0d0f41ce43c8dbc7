-- All in one pass: each series' samples in the order of time, which tell too whether one is there twice, so that
-- the answer is not to be used. The first row tells of all samples.
SELECT
    any(group_names) AS names, bucket, sum(step) / ({interval:Int64} / 1000) AS value, toUInt64(0) AS samples,
    if(bucket = @NONE@, sum(matched), 0) AS series, if(bucket = @NONE@, sum(n), 0) AS scanned,
    if(bucket = @NONE@, sum(twice), 0) AS overlaps
FROM
(
    SELECT
        bucket, step, matched, n, twice, if(bucket = @NONE@, 0, @ID_OR_0@) AS group_id,
        if(bucket = @NONE@, CAST([], 'Array(String)'), @GROUP@) AS group_names
    FROM
    (
        -- A step is the increase, or after a reset the new value; the first sample of a series ends none. Steps
        -- are summed within each bucket before they are gathered by groups.
        SELECT
            fp, length(times) AS n, twice, times[-1] >= {start:Int64} AS matched,
            greatest(1, arrayCount(time -> time < {start:Int64}, times)) AS carried,
            arraySlice(
                arrayMap((v, before) -> if(v < before, v, v - before), values, arrayShiftRight(values, 1)),
                carried + 1
            ) AS steps,
            arrayMap(time -> @BUCKET@, arraySlice(times, carried + 1)) AS buckets,
            arraySplit((step, own, before) -> own != before, steps, buckets, arrayShiftRight(buckets, 1)) AS pieces
        FROM
        (
            SELECT
                fp, arrayExists((time, before) -> time <= before, times_read, arrayShiftRight(times_read, 1, @NONE@)) AS mixed,
                if(mixed, arraySort(times_read), times_read) AS times,
                if(mixed, arraySort((v, time) -> time, values_read, times_read), values_read) AS values,
                mixed AND arrayExists((time, before) -> time = before, times, arrayShiftRight(times, 1, @NONE@)) AS twice
            FROM
            (
                SELECT fp, groupArray(toUnixTimestamp64Milli(ts)) AS times_read, groupArray(v) AS values_read
                FROM samples
                WHERE @SELECTED@
                GROUP BY fp
            )
        )
    ) AS lines
    @NAMED_SERIES@
    ARRAY JOIN
        arrayPushFront(arrayCompact(buckets), @NONE@) AS bucket,
        arrayPushFront(arrayMap(piece -> arraySum(piece), pieces), 0) AS step
)
GROUP BY group_id, bucket
ORDER BY names, bucket
LIMIT {rows:UInt64} + 1
