-- All in one pass: each series' samples in the order of time, which tell too whether one is there twice, so that
-- the answer is not to be used. The first row tells of all samples. Times are counted from the first bucket's begin,
-- and cells are buckets by number; that of the first row is -1.
SELECT
    any(group_names) AS names, if(cell = -1, @NONE@, {origin:Int64} + cell * {interval:Int64}) AS bucket,
    sum(step) / ({interval:Int64} / 1000) AS value, toUInt64(0) AS samples, if(cell = -1, sum(matched), 0) AS series,
    if(cell = -1, sum(n), 0) AS scanned, if(cell = -1, sum(twice), 0) AS overlaps
FROM
(
    SELECT
        cell, step, matched, n, twice, if(cell = -1, 0, @ID_OR_0@) AS group_id,
        if(cell = -1, CAST([], 'Array(String)'), @GROUP@) AS group_names
    FROM
    (
        -- A step is the increase, or after a reset the new value; the first sample of a series ends none. Steps
        -- are summed within each bucket before they are gathered by groups.
        WITH to@TICK@({start:Int64} - {origin:Int64}) AS begin
        SELECT
            fp, length(times) AS n, times[-1] >= begin AS matched, length(arrayCompact(times)) < n AS twice,
            greatest(1, arrayCount(time -> time < begin, times)) AS carried,
            arraySlice(
                arrayMap((change, v) -> if(change < 0, v, change), arrayDifference(values), values), carried + 1
            ) AS steps,
            arrayMap(time -> intDiv(time, to@TICK@({interval:Int64})), arraySlice(times, carried + 1)) AS own,
            arraySplit((step, change) -> change != 0, steps, arrayDifference(own)) AS pieces
        FROM
        (
            -- Sorting what is sorted is cheaper than to look whether it is, and copy what stays.
            SELECT
                fp, arraySort(times_read) AS times, arraySort((v, time) -> time, values_read, times_read) AS values
            FROM
            (
                SELECT
                    fp, groupArray(to@TICK@(toUnixTimestamp64Milli(ts) - {origin:Int64})) AS times_read,
                    groupArray(v) AS values_read
                FROM samples
                WHERE @SELECTED@
                GROUP BY fp
            )
        )
    ) AS lines
    @NAMED_SERIES@
    ARRAY JOIN
        arrayPushFront(CAST(arrayCompact(own), 'Array(Int64)'), -1) AS cell,
        arrayPushFront(arrayMap(piece -> arraySum(piece), pieces), 0) AS step
)
GROUP BY group_id, cell
ORDER BY names, bucket
LIMIT {rows:UInt64} + 1
