"""To be written: selection."""
