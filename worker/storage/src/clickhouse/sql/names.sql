SELECT fp, any([@KEYS@]) AS names
FROM series
WHERE @PRESENT@
GROUP BY fp
