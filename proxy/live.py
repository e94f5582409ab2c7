"""To be written: live."""
