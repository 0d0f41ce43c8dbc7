-- As survey.sql, and how many series have samples in parts of the table whose spans of time overlap. Only there
-- can a sample have been written twice and not be merged yet: within one part each is there once.
(
    SELECT (countIf(last >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')), sum(count), countIf(overlapping))
    FROM
    (
        SELECT
            fp, sum(samples) AS count, max(newest) AS last, arraySort(groupArray((oldest, newest))) AS spans,
            arrayExists((one, next) -> one.2 >= next.1, arrayPopBack(spans), arrayPopFront(spans)) AS overlapping
        FROM
        (
            SELECT fp, _part_index AS part, count() AS samples, min(ts) AS oldest, max(ts) AS newest
            FROM samples
            WHERE @SELECTED@
            GROUP BY fp, part
        )
        GROUP BY fp
    )
)
