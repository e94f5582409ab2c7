"""To be written: routing."""
