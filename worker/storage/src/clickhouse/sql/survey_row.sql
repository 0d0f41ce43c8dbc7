-- The first row tells of all samples (series, samples read), the others are the answer's.
WITH @SURVEY@ AS survey
SELECT
    true AS of_all, CAST([], 'Array(String)') AS names, toInt64(0) AS bucket, toFloat64(0) AS value,
    assumeNotNull(survey.1) AS samples, assumeNotNull(survey.2) AS scanned
UNION ALL
