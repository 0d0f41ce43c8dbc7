-- The last write of each sample; nothing where there are more samples than may be read.
(
    SELECT fp, toUnixTimestamp64Milli(ts) AS time, v
    FROM samples FINAL
    WHERE survey.2 <= {most:UInt64} AND @SELECTED@
)
