"""The installation: settings, the two doors, the server and the portal."""
