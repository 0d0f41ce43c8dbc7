-- The series that are chosen, if they are few; else some of them, one more than few.
SELECT groupArray(fp) AS fps FROM (SELECT DISTINCT fp FROM series WHERE @PRESENT@ LIMIT {fews:UInt64})
