SELECT count() AS samples FROM samples WHERE tenant = {tenant:String}
