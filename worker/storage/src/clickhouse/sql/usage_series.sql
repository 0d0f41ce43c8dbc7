SELECT uniqExact(metric) AS metrics, uniqExact(metric, fp) AS series FROM series WHERE @LIVING@
