"""Choosing a backend for a request: the router's rule, the plan, the snapshot it is made from, and backend health."""
