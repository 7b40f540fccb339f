"""The wire formats of backends: one module each."""
