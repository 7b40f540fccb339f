"""The APIs that clients of the gateway speak: one module for each."""
