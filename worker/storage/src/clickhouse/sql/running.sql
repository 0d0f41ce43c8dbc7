SELECT query_id AS id, elapsed, read_rows AS scanned
FROM @PROCESSES@
WHERE startsWith(query_id, {prefix:String}) AND is_initial_query
ORDER BY elapsed DESC
