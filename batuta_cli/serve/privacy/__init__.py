"""The privacy gate, which judges addresses, and the audit log of its decisions."""
