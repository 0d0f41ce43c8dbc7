-- By other workers.
SELECT sum(most) AS samples
FROM
(
    SELECT worker, max(samples) AS most
    FROM accepted
    WHERE tenant = {tenant:String} AND day = addDays(toDate32('1970-01-01'), {day:Int32})
        AND worker != {worker:String}
    GROUP BY worker
)
