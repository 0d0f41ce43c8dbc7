KILL QUERY @ON_CLUSTER@ WHERE startsWith(query_id, {prefix:String}) ASYNC
