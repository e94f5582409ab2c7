"""What we do with a request: inspect, route, forward, relay."""
