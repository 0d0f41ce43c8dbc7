INNER JOIN (SELECT fp, names, sipHash64(names) AS id FROM (@NAMES@)) AS groups USING (fp)
