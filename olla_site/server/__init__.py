"""OllaServer: Daphne with limits, flow control and a graceful drain."""
