INSERT INTO generations (tenant, changes) SELECT {tenant:String}, 1
