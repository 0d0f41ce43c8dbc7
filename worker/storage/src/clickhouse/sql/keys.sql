SELECT toString(arrayJoin(keys)) AS name
FROM (SELECT DISTINCT mapKeys(dimensions) AS keys FROM series WHERE @LIVING@ AND metric = {metric:String})
WHERE startsWith(name, {prefix:String})
