SELECT toString(metric) AS name FROM series WHERE @LIVING@ AND startsWith(metric, {prefix:String}) GROUP BY name
