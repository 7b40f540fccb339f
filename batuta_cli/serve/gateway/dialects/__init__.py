"""The client APIs of the gateway, one module each."""
