-- The last write of each sample: by FINAL only where the survey, which sees the same parts, says that it must be.
-- Nothing where there are more samples than may be read.
(
    SELECT fp, toUnixTimestamp64Milli(ts) AS time, v
    FROM samples
    WHERE survey.2 <= {most:UInt64} AND survey.3 = 0 AND @SELECTED@
    UNION ALL
    SELECT fp, toUnixTimestamp64Milli(ts) AS time, v
    FROM samples FINAL
    WHERE survey.2 <= {most:UInt64} AND survey.3 > 0 AND @SELECTED@
)
