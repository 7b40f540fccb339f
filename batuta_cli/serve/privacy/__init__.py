"""The privacy gate, which decides by addresses, and the audit log of its decisions."""
