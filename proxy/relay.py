"""To be written: relay."""
