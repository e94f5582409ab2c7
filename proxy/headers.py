"""To be written: headers."""
