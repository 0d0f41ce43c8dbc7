tenant = {tenant:String} AND metric = {metric:String}
    AND day >= addDays(toDate32('1970-01-01'), {first_day:Int32})
    AND day <= addDays(toDate32('1970-01-01'), {last_day:Int32})
    @FILTERS@
