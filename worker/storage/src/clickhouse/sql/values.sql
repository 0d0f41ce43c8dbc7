SELECT dimensions[{key:String}] AS name
FROM series
WHERE @LIVING@ AND metric = {metric:String} AND name != '' AND startsWith(name, {prefix:String})
