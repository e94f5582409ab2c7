"""To be written: admission."""
