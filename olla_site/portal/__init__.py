"""The internal-team portal."""
