INSERT INTO accepted (tenant, day, worker, samples)
SELECT news.1, toDate32(news.2), {worker:String}, news.3
FROM
(
    SELECT arrayJoin(arrayZip({tenants:Array(String)}, {days:Array(Int32)}, {samples:Array(UInt64)})) AS news
)
