"""Anthropic Messages and OpenAI chat, translated both ways; plain Python."""
