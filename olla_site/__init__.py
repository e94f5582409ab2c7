"""The installation: settings, the two doors, the server and the portal."""

__version__ = "0.1.0"
