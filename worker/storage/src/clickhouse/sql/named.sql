INNER JOIN (SELECT DISTINCT sipHash64(names) AS id, names FROM (@NAMES@)) AS named USING (id)
