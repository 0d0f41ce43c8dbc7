SELECT worker FROM leases FINAL WHERE task = {task:String} AND until_ms > {now:Int64} ORDER BY until_ms, worker LIMIT 1
