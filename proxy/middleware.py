"""To be written: middleware."""
