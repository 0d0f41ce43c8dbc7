-- The row without a bucket tells of all samples, the others are the answer's.
WITH @SURVEY@ AS survey
SELECT
    CAST([], 'Array(String)') AS names, @NONE@ AS bucket, toFloat64(0) AS value, toUInt64(0) AS samples,
    assumeNotNull(survey.1) AS series, assumeNotNull(survey.2) AS scanned, toUInt64(0) AS overlaps
UNION ALL
