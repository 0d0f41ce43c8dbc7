-- Of what is selected: series with a sample since the start (what is read before it carries in), and samples.
-- Ones that were written twice and aren't merged yet count twice: they are read.
(
    SELECT (uniqExactIf(fp, ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')), count())
    FROM samples
    WHERE @SELECTED@
)
