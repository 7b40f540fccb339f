"""The path of one request: plan, reserve, run, fail over, settle."""
