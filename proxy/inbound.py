"""To be written: inbound."""
