"""Which backend takes a request: the router, the plan, the snapshot it is made from, and the health of backends."""
