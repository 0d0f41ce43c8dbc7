-- The first samples of few series. One that was written twice and isn't merged yet is there twice.
SELECT fp, toUnixTimestamp64Milli(ts) AS time, v AS value
FROM samples
WHERE @SELECTED@
ORDER BY ts
LIMIT {rows:UInt64} WITH TIES
