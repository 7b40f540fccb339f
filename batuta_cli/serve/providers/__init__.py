"""How backends are spoken to: the only part of `serve` that opens connections."""
