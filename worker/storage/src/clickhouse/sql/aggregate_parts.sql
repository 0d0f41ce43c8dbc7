-- All in one pass: numbers by series, bucket and part of the table, which tell too whether parts overlap, so that a
-- sample may be there twice and the answer is not to be used. Each row tells of all samples as well.
SELECT
    @NAMES_OF_GROUP@ AS names, @CELL@ AS bucket, @WHOLE@ AS value, sum(n) AS samples,
    @SERIES@ AS series, sum(sum(n)) OVER () AS scanned, sum(countIf(overlapping)) OVER () AS overlaps
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
@BY_GROUP@
ORDER BY names, bucket
LIMIT {rows:UInt64}
