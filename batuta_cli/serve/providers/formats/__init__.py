"""The wire formats that backends speak: one module for each."""
