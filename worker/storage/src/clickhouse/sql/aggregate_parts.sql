-- All in one pass: numbers by series, bucket and part of the table, which tell too whether parts overlap, so that a
-- sample may be there twice and the answer is not to be used. The first row tells of all samples: series,
-- samples read, and in place of a bucket how often parts overlap.
SELECT
    grouping(id) = 1 AS of_all, if(of_all, CAST([], 'Array(String)'), any(group_names)) AS names,
    if(of_all, toInt64(countIf(overlapping)), @CELL@) AS bucket, @WHOLE@ AS value,
    if(of_all, @SERIES@, sum(n)) AS samples, sum(n) AS scanned
FROM
(
    SELECT fp, @ID_OR_0@ AS id, @GROUP@ AS group_names, @BY_CELL@ n, made, overlapping
    FROM
    (
        SELECT
            fp, @BY_CELL@ sum(samples) AS n, @TOGETHER@ AS made, arraySort(groupArray((oldest, newest))) AS spans,
            arrayExists((one, next) -> one.2 >= next.1, arrayPopBack(spans), arrayPopFront(spans)) AS overlapping
        FROM
        (
            SELECT
                fp, _part_index AS part, @CELL_OF_SAMPLE@ count() AS samples, min(ts) AS oldest, max(ts) AS newest,
                @PART@ AS made_of_part
            FROM samples
            WHERE @SELECTED@
            GROUP BY @BY_CELL@ fp, part
        )
        GROUP BY @BY_CELL@ fp
    ) AS by_series
    @NAMED_SERIES@
)
GROUP BY GROUPING SETS ((@BY_CELL@ id), ())
ORDER BY of_all DESC, names, bucket
LIMIT {rows:UInt64} + 1
