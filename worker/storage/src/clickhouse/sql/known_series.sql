-- Which of these series a tenant has on a day that isn't over; and of the days up to {newest}, bit n for the
-- n-th before it, those whose row no delete that is under way can take.
SELECT
    fp,
    max(toInt32(day)) AS last,
    groupBitOrIf(
        bitShiftLeft(toUInt64(1), toUInt64({newest:Int32} - toInt32(day))),
        toInt32(day) BETWEEN {newest:Int32} - 63 AND {newest:Int32} AND generation >= {generation:UInt64}
    ) AS days
FROM series
WHERE tenant = {tenant:String} AND metric IN {metrics:Array(String)} AND fp IN {prints:Array(UInt64)}
    AND toInt32(day) >= {floor:Int32}
GROUP BY fp
