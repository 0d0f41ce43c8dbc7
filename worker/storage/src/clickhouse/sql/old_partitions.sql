-- Partitions are named by their day, as in 20260131.
SELECT DISTINCT partition
FROM system.parts
WHERE database = currentDatabase() AND table = {table:String} AND active
    AND toUInt32OrZero(partition) < toYYYYMMDD(toDate32({day:Int32}))
ORDER BY partition
