"""To be written: guards."""
