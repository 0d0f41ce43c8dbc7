-- The last write of each sample of few series.
SELECT fp, toUnixTimestamp64Milli(ts) AS time, v AS value
FROM samples FINAL
WHERE @SELECTED@
ORDER BY fp, ts
LIMIT {rows:UInt64}
