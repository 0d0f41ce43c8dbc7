-- Which group a series is in, as a number: names would be hashed for each sample.
INNER JOIN (SELECT fp, sipHash64(names) AS id FROM (@NAMES@)) AS groups USING (fp)
