SELECT if(sum(rows) = 0, 0, sum(bytes_on_disk) / sum(rows)) AS bytes
FROM system.parts
WHERE database = currentDatabase() AND table IN ('samples', 'samples_local') AND active
