-- One row, whatever there is.
SELECT
    arraySlice(arrayFilter(name -> name > {after:String}, known), 1, {rows:UInt64}) AS names,
    length(known) AS total
FROM (SELECT arraySort(groupUniqArray(name)) AS known FROM (@NAMES@))
