-- The version grows also where two workers' clocks differ.
INSERT INTO retentions (tenant, default_ms, metrics, version)
SELECT
    {tenant:String},
    {default_ms:Int64},
    mapFromArrays({names:Array(String)}, {millis:Array(Int64)}),
    greatest((SELECT max(version) + 1 FROM retentions WHERE tenant = {tenant:String}), {now:UInt64})
