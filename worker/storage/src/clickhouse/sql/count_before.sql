SELECT uniqExact(fp) AS series, count() AS samples FROM samples FINAL WHERE @SELECTED@
