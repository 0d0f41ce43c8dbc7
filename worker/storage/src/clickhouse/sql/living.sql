-- Presence ends with the last day that isn't older than the metric's retention.
tenant = {tenant:String}
    AND day >= addDays(toDate32('1970-01-01'), {oldest_day:Int32})
    AND day >= addDays(
        toDate32('1970-01-01'),
        if(has({own:Array(String)}, metric), {own_days:Array(Int32)}[indexOf({own:Array(String)}, metric)], {default_day:Int32}))
