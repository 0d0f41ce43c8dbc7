tenant = {tenant:String} AND metric = {metric:String}
    AND ts >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') AND ts < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
    @CHOSEN@
