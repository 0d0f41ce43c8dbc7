-- The last write of each sample; nothing where there are more of them than may be read.
(
    SELECT fp, toUnixTimestamp64Milli(ts) AS time, v
    FROM samples FINAL
    WHERE @SELECTED@ AND survey.2 <= {most:UInt64}
)
