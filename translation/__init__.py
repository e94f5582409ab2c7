"""Anthropic Messages and OpenAI chat, translated both ways; plain Python.

    anthropic_request   parse_request(): bytes -> AnthropicRequest, checked
    turns, steps        a conversation opened a batch at a time, and long work taken in short steps
    openai_request      build_openai_request(): AnthropicRequest -> body for a chat backend, facts, warnings
    anthropic_response  build_anthropic_response(): the backend's answer -> an Anthropic message
    anthropic_stream    AnthropicStream: the backend's chunks -> Anthropic events
    errors, overflow    failures -> status, envelope and headers
    token_count         estimates, and asking the backend's own tokenizer
    mode                passthrough or translation, for one endpoint
    translator_stats    the statistics of the translator as records

Nothing here touches a network, a clock or a random source: the caller passes the time, sixteen random bytes
per message and the key that signs thinking blocks.
"""
