INSERT INTO leases (task, worker, until_ms) SELECT {task:String}, {worker:String}, {until:Int64}
