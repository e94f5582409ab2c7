"""What each kind of server guards: requests that change a backend or reveal its configuration. (pure)

Sources: the route tables of vLLM 0.33, vLLM-MLX 0.6, SGLang 0.5.23, LMDeploy 0.18, LiteLLM 1.106 and llama.cpp
build 11434, and the public sources and API references of the others, as of 2026-11.
"""

from __future__ import annotations

from endpoints.profile import Guard


def _any(*paths: str) -> tuple[Guard, ...]:
    return tuple(Guard("*", path) for path in paths)


def _post(*paths: str) -> tuple[Guard, ...]:
    return tuple(Guard("POST", path) for path in paths)


# Go's profiler, which shows the memory with what others asked, is on Ollama's own port.
OLLAMA_GUARDS = _any(
    "/api/create*", "/api/push*", "/api/pull*", "/api/delete*", "/api/copy*", "/api/blobs*",
    "/api/signout*", "/api/me", "/api/user", "/api/experimental",
    "/debug/pprof",
)  # fmt: skip
LM_STUDIO_GUARDS = _any(
    "/api/v1/models/load*", "/api/v1/models/unload*", "/api/v1/models/download*", "/api/v0/models/load*",
    "/api/v0/models/unload*", "/api/v0/models/download*",
)  # fmt: skip
VLLM_GUARDS = _any(
    "/sleep*", "/wake_up*", "/is_sleeping*", "/v1/load_lora_adapter*", "/v1/unload_lora_adapter*",
    "/reset_*", "/start_profile*", "/stop_profile*", "/collective_rpc*", "/server_info*", "/update_weight*",
    "/start_weight*", "/finish_weight*", "/scale_elastic_ep*", "/is_scaling_elastic_ep*", "/init_weight*",
    "/pause", "/resume", "/is_paused", "/abort_requests*", "/start_draft_weight*", "/weight_info*",
    "/weight_checker*", "/get_world_size*", "/fault_tolerance", "/shutdown_weight*", "/release_kv_cache*",
    "/kv_event_sources",
)  # fmt: skip
# Its tools run on the server's machine, and it cancels anybody's request; builds of it have vLLM's calls too.
VLLM_MLX_GUARDS = (*VLLM_GUARDS, *_any("/v1/mcp", "/v1/requests"), Guard("DELETE", "/v1/cache"))
SGLANG_GUARDS = _any(
    "/flush_cache*", "/update_weight*", "/load_lora_adapter*", "/unload_lora_adapter*", "/start_profile*",
    "/stop_profile*", "/release_memory_occupation*", "/resume_memory_occupation*", "/init_weights*",
    "/destroy_weights*", "/send_weights*", "/weights_checker*", "/hicache*", "/set_trace_level*", "/get_weights*",
    "/get_server_info*", "/get_server_args*", "/server_info*", "/set_internal_state*", "/get_internal_state*",
    "/configure_logging*", "/start_expert_distribution*", "/stop_expert_distribution*",
    "/dump_expert_distribution*", "/open_session*", "/close_session*", "/abort_request*", "/clear_hicache*",
    "/pause_generation*", "/continue_generation*", "/slow_down*", "/freeze_gc*", "/get_remote_instance*",
    "/remote_instance*", "/dumper", "/pd_role_switch", "/begin_weight*", "/end_weight*", "/add_external_corpus",
    "/remove_external_corpus", "/list_external_corpora", "/scale_elastic_ep*", "/is_scaling_elastic_ep*",
    "/get_hicache*", "/gate", "/get_transfer_engine*", "/register_transfer_engine*", "/register_encoder*",
    "/unregister_encoder*", "/list_encoder*", "/scheduler_receive*",
)  # fmt: skip
# /slots and the streams to be taken up again show what others asked; /tools runs what is built in on the server's
# machine and /cors-proxy fetches any address from there; with several models, /models downloads and removes them.
# From /unload on they are llama-swap's, often put before llama.cpp.
LLAMACPP_GUARDS = (
    *_post("/props", "/lora-adapters", "/models"),
    Guard("DELETE", "*"),
    *_any("/slots", "/models/load", "/models/unload", "/models/sse", "/tools", "/cors-proxy", "/v1/stream",
          "/v1/streams", "/chat/completions/control", "/exit", "/unload", "/api/models/unload", "/logs",
          "/api/events", "/upstream"),
)  # fmt: skip
# `/mcp` downloads models and writes files there, `options` hold how a model is started, `files` where it lies on
# its disk, `slots` what others asked; the last line is Ollama's.
LEMONADE_GUARDS = _any(
    *(f"/{version}/{action}" for version in ("v0", "v1") for action in (
        "pull", "load", "unload", "delete", "install", "uninstall", "params", "log-level", "halt", "downloads",
        "cloud", "registry", "slots", "models/register", "models/check-updates", "models/*/options",
        "models/*/files",
    )),
    "/logs", "/internal", "/mcp",
    "/api/pull", "/api/delete", "/api/create", "/api/copy", "/api/push", "/api/blobs",
)  # fmt: skip
# What manages a LiteLLM proxy, which is often registered as merely OpenAI-compatible.
_KEY_MANAGEMENT = (
    "/key", "/user", "/team", "/model", "/organization", "/customer", "/end_user", "/budget", "/spend", "/global",
    "/config", "/credentials", "/cache", "/sso", "/invitation", "/guardrails", "/policies", "/mcp", "/v1/mcp",
    "/get/config", "/v1/model/info", "/v2/model/info", "/vector_store", "/routes", "/settings", "/debug",
)  # fmt: skip
OPENAI_GUARDS = (
    Guard("DELETE", "*", own_key_only=True),
    *(
        Guard("*", path, own_key_only=True)
        for path in (
            *_KEY_MANAGEMENT,
            "/files", "/uploads", "/fine_tuning", "/fine-tuning", "/batches", "/assistants", "/threads",
            "/organization", "/vector_stores", "/containers", "/evals", "/webhooks", "/conversations", "/projects",
        )
    ),
    # Lists what others asked and were answered.
    Guard("GET", "/chat/completions", own_key_only=True),
)  # fmt: skip
LITELLM_OPEN = (
    "/", "/health", "/health/readiness", "/health/liveness", "/health/liveliness", "/v2/rerank",
    *(f"/{way}/*{call}" for way in ("engines", "openai/deployments")
      for call in ("/chat/completions", "/completions", "/embeddings")),
    *(
        f"{prefix}{path}"
        for prefix in ("", "/v1")
        for path in (
            "/chat/completions", "/completions", "/embeddings", "/models", "/models/*", "/images/generations",
            "/images/edits", "/images/variations", "/audio/speech", "/audio/transcriptions",
            "/audio/translations", "/moderations", "/rerank", "/responses",
            "/messages", "/messages/count_tokens", "/realtime",
        )
    ),
)  # fmt: skip
DMR_GUARDS = (
    *_any("/models/create", "/models/*/push", "/models/prune", "/models/load", "/models/package",
          "/models/*/export", "/engines/unload", "/_configure", "/engines/df", "/engines/requests",
          "/engines/install-backend", "/api/pull", "/api/delete"),  # the last two as Ollama's
    Guard("POST", "/models"),
    Guard("DELETE", "*"),
)  # fmt: skip
LMDEPLOY_GUARDS = _any(
    "/sleep*", "/wakeup*", "/update_weights*", "/init_weights*", "/destroy_weights*", "/abort_request*",
    "/distserve", "/terminate", "/nodes",
)  # fmt: skip
OMLX_GUARDS = _any("/v1/models/*/load", "/v1/models/*/unload", "/v1/mcp", "/v1/dynamoe", "/admin", "/api/status")
