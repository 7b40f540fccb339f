"""The daily budget: the circuit breaker, reservations, and the ledger that keeps what was spent."""
