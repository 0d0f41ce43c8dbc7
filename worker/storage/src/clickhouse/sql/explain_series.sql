SELECT uniqExact(fp) FROM series WHERE @PRESENT@
