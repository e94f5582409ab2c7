"""To be written: forwarding."""
