"""To be written: upstream."""
