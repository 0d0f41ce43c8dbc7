-- By the primary key, in whole granules.
SELECT sumIf(rows, table LIKE 'samples%') AS samples
FROM (EXPLAIN ESTIMATE SELECT v FROM samples WHERE @SELECTED@)
