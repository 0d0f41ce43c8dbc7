-- What follows the cursor's row: fewer series, or as many and a later name and value.
SELECT name, value, series
FROM (@COUNTS@)
WHERE series < {after_series:UInt64}
    OR (series = {after_series:UInt64} AND (name, value) > ({after_name:String}, {after_value:String}))
ORDER BY series DESC, name, value
LIMIT {rows:UInt64}
