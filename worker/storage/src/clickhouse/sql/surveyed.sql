WITH @SURVEY@ AS survey
SELECT assumeNotNull(survey.1) AS series, assumeNotNull(survey.2) AS scanned
