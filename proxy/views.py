"""To be written: views."""
