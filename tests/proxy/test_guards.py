"""No spelling of a guarded path slips by, and no inference path is caught."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.profiles import DISGUISES, PROFILES, parse_backend_type
from proxy.errors import OllaError
from proxy.guards import is_guarded, is_opened, normalise_path
from proxy.inbound import join_target, parse_target
from tests.proxy.builders import outcome_of
from tests.proxy.test_inbound import INFERENCE_PATHS

# Kind -> (method, path) that must be refused, with the endpoint's own key in use.
GUARDED: dict[str, list[tuple[str, str]]] = {
    "ollama": [
        ("POST", "/api/create"), ("POST", "/api/push"), ("POST", "/api/pull"), ("DELETE", "/api/delete"),
        ("POST", "/api/copy"), ("HEAD", "/api/blobs/sha256:ab"), ("POST", "/api/blobs/sha256:ab"),
        ("POST", "/api/signout"), ("POST", "/api/me"), ("DELETE", "/api/user/keys/k"),
        ("POST", "/api/experimental/web_fetch"), ("GET", "/debug/pprof/heap"), ("GET", "/debug/pprof/"),
    ],
    "lm-studio": [
        ("POST", "/api/v1/models/load"), ("POST", "/api/v1/models/unload"), ("POST", "/api/v1/models/download"),
        ("GET", "/api/v1/models/download/status/job"), ("POST", "/api/v0/models/load"),
    ],
    "vllm": [
        ("POST", "/sleep"), ("POST", "/wake_up"), ("POST", "/v1/load_lora_adapter"),
        ("POST", "/reset_prefix_cache"), ("POST", "/v1/unload_lora_adapter"), ("POST", "/collective_rpc"),
        ("GET", "/server_info"), ("POST", "/pause"),
        ("POST", "/reset_encoder_cache"), ("POST", "/update_weights"), ("POST", "/scale_elastic_ep"),
        ("POST", "/weight_checker"), ("POST", "/start_draft_weight_update"), ("POST", "/fault_tolerance/apply"),
        ("GET", "/weight_info"), ("POST", "/shutdown_weight_transfer_engine"), ("POST", "/finish_weight_update"),
        ("POST", "/release_kv_cache_memory"), ("GET", "/kv_event_sources"), ("POST", "/is_scaling_elastic_ep"),
    ],
    "vllm-mlx": [
        ("POST", "/sleep"), ("POST", "/v1/load_lora_adapter"), ("DELETE", "/v1/cache"),
        ("DELETE", "/v1/cache/prefix"), ("POST", "/v1/mcp/execute"), ("GET", "/v1/mcp/servers"),
        ("POST", "/v1/requests/chatcmpl-1/cancel"), ("DELETE", "/v1/requests/chatcmpl-1"),
    ],
    "sglang": [
        ("GET", "/flush_cache"), ("POST", "/flush_cache"), ("POST", "/update_weights_from_disk"),
        ("POST", "/load_lora_adapter"), ("POST", "/release_memory_occupation"), ("GET", "/get_server_info"),
        ("POST", "/abort_request"), ("PUT", "/hicache/storage-backend"), ("POST", "/set_internal_state"),
        ("GET", "/get_remote_instance_transfer_engine_info"), ("POST", "/pd_role_switch"),
        ("POST", "/begin_weight_update"), ("POST", "/end_weight_update"), ("POST", "/add_external_corpus"),
        ("GET", "/list_external_corpora"), ("POST", "/scale_elastic_ep"), ("POST", "/gate/activate"),
        ("GET", "/get_hicache_l3_cache_layout"), ("PUT", "/register_transfer_engine_info"),
        ("POST", "/register_encoder_url"), ("DELETE", "/unregister_encoder_url"), ("POST", "/dumper/configure"),
    ],
    "llamacpp": [
        ("POST", "/props"), ("POST", "/slots/0"), ("GET", "/slots"), ("POST", "/lora-adapters"),
        ("POST", "/models/load"), ("POST", "/models/unload"), ("GET", "/unload"), ("GET", "/upstream/m/slots"),
        ("POST", "/models"), ("DELETE", "/models"), ("GET", "/models/sse"), ("POST", "/tools"), ("GET", "/tools"),
        ("GET", "/cors-proxy"), ("POST", "/cors-proxy"), ("GET", "/v1/stream"), ("POST", "/v1/streams/lookup"),
        ("POST", "/v1/chat/completions/control"),
    ],
    "lemonade": [
        ("POST", "/api/v1/pull"), ("POST", "/api/v1/load"), ("POST", "/api/v1/unload"), ("POST", "/api/v1/delete"),
        ("POST", "/v1/params"), ("POST", "/api/v0/install"), ("POST", "/internal/shutdown"),
        ("POST", "/api/pull"), ("DELETE", "/api/delete"), ("GET", "/api/v1/logs/stream"), ("GET", "/logs/stream"),
        ("POST", "/api/v1/models/register"), ("POST", "/v1/models/check-updates"), ("GET", "/v1/downloads"),
        ("POST", "/v1/downloads/control"), ("POST", "/v1/cloud/auth"), ("DELETE", "/v1/cloud/auth/openai"),
        ("GET", "/v1/registry/search"), ("POST", "/v1/install/dry-run"), ("GET", "/v1/models/org/m/files"),
        ("GET", "/v1/models/m/options"), ("DELETE", "/v1/models/m/options"), ("POST", "/v1/slots/0"),
        ("GET", "/v1/slots"), ("POST", "/mcp"), ("GET", "/internal/config"), ("POST", "/api/blobs/sha256:ab"),
    ],
    "litellm": [
        ("POST", "/key/generate"), ("GET", "/key/info"), ("POST", "/user/new"), ("GET", "/v1/model/info"),
        ("POST", "/model/new"), ("GET", "/spend/logs"), ("POST", "/config/update"), ("GET", "/team/list"),
        ("POST", "/v1/files"), ("GET", "/v1/responses/r1"), ("GET", "/get/config/callbacks"), ("GET", "/sso/key"),
        ("GET", "/v1/audio/../../key/info"), ("GET", "/models/../key/generate"),
    ],
    "lmdeploy": [("POST", "/sleep"), ("POST", "/update_weights"), ("GET", "/terminate"), ("POST", "/nodes/add"),
                 ("POST", "/update_weights_from_ipc"), ("POST", "/init_weights_update_group"),
                 ("POST", "/destroy_weights_update_group"), ("POST", "/distserve/free_cache")],
    "omlx": [("POST", "/v1/models/mlx-c/x/load"), ("POST", "/v1/models/x/unload"), ("GET", "/admin/api/x"),
             ("POST", "/v1/mcp/execute"), ("GET", "/v1/mcp/tools"), ("POST", "/v1/dynamoe/engine/boost"),
             ("GET", "/api/status")],
    "docker-model-runner": [
        ("POST", "/models/create"), ("POST", "/models/ai/smollm2/push"), ("DELETE", "/models/ai/smollm2"),
        ("POST", "/engines/unload"), ("POST", "/engines/llama.cpp/_configure"), ("GET", "/engines/df"),
        ("GET", "/models/ai/smollm2/export"), ("GET", "/engines/_configure"), ("GET", "/engines/requests"),
        ("POST", "/engines/install-backend"), ("DELETE", "/models/purge"), ("POST", "/models/ai/smollm2/tag"),
        ("POST", "/api/pull"), ("DELETE", "/api/delete"),
    ],
    "openai": [
        ("DELETE", "/v1/models/ft:gpt"), ("GET", "/v1/files"), ("POST", "/v1/fine_tuning/jobs"),
        ("POST", "/v1/batches"),
        ("GET", "/v1/organization/users"), ("GET", "/v1/assistants"), ("POST", "/v1/threads/t/messages"),
        ("GET", "/v1/chat/completions"), ("DELETE", "/v1/responses/r1"), ("POST", "/v1/vector_stores"),
        ("POST", "/key/generate"), ("GET", "/v2/model/info"),
    ],
}  # fmt: skip
GUARDED["openai-compatible"] = [
    *GUARDED["openai"],
    *(each for kind in DISGUISES for each in GUARDED[kind]),
]  # fmt: skip
ALL_GUARDED = [(kind, *each) for kind, rows in GUARDED.items() for each in rows]


def spellings(path: str) -> list[str]:
    """Many ways to write a path that one backend or another reads as the same."""
    escaped = "".join(f"%{ord(char):02x}" if char != "/" else char for char in path)
    twice = escaped.replace("%", "%25")
    first, rest = path[1:2], path[2:]
    return [
        path, path.upper(), path.title(), f"{path}/", f"{path}//", path.replace("/", "//"), f"/{path}",
        escaped, escaped.upper().replace("%2F", "%2f"), twice, twice.replace("%", "%25"),
        path.replace("/", "%2f"), path.replace("/", "%252F"), "/" + path[1:].replace("/", "\\"),
        "/" + path[1:].replace("/", "%5C"), f"{path}.", f"{path}%20", f"{path}%2e", f"{path};v=1",
        path.replace("/", ";a=b/")[4:] + ";a", f"{path}%3fx=1", f"{path}%23x", f"{path}%3Bx", f"{path}%2500",
        f"/%{ord(first):02X}{rest}", f"/x{path}", f"/ollama{path}", f"/a/b{path}", f"{path}/x", f"/./x/..{path}",
        f"/x/%2e%2e{path}", f"/v1/models/%252e%252e/%252e%252e{path}", f"%2f{path}", f"/%09{path}", f"{path}%09",
    ]  # fmt: skip


def is_let_through(kind: str, method: str, target: str, base: str = "", *, own_key: bool = True) -> bool:
    """Whether a target as sent passes both the reading of the path and the guards."""
    outcome = outcome_of(lambda: parse_target(target.encode()))
    if isinstance(outcome, OllaError):
        return False
    return not is_guarded(PROFILES[kind], method, outcome[0], base=base, own_key=own_key)


def test_it_has_guarded_paths_of_every_kind_that_has_any() -> None:
    assert set(GUARDED) == {kind.name for kind in PROFILES.values() if kind.guards or kind.open_paths}


@pytest.mark.parametrize(("kind", "method", "path"), ALL_GUARDED)
def test_it_guards_a_path_in_every_spelling(kind: str, method: str, path: str) -> None:
    passed = [target for target in spellings(path) if is_let_through(kind, method, target)]
    if kind == "litellm":
        # Where the rest of the path is an open one, a prefix makes it no management call.
        passed = [target for target in passed if target != f"{path}/x"]
    assert passed == []


@pytest.mark.parametrize(("kind", "method", "path"), ALL_GUARDED)
@pytest.mark.parametrize("base", ["/base", "/engines/llama.cpp", "/api/v2/llm"])
def test_it_guards_a_path_below_any_base(kind: str, method: str, path: str, base: str) -> None:
    assert not is_let_through(kind, method, path, base)
    assert not is_let_through(kind, method, path.replace("/", "//").upper(), base)


@pytest.mark.parametrize(("kind", "method", "path"), [each for each in ALL_GUARDED if each[0] != "litellm"])
def test_it_guards_a_path_whose_start_is_the_base(kind: str, method: str, path: str) -> None:
    parts = path.strip("/").split("/")
    for cut in range(1, len(parts)):
        base, rest = "/" + "/".join(parts[:cut]), "/" + "/".join(parts[cut:])
        # An operator who put the endpoint below a guarded path means what is there.
        meant = is_guarded(PROFILES[kind], method, base, own_key=True)
        assert meant or not is_let_through(kind, method, rest, base)


@pytest.mark.parametrize("method", ["post", "PoSt", "PUT", "PATCH", "FOO"])
def test_it_takes_unusual_methods_for_the_guarded_one(method: str) -> None:
    assert not is_let_through("llamacpp", method, "/props")


@pytest.mark.parametrize("method", ["TRACE", "trace", "CONNECT"])
@pytest.mark.parametrize("kind", PROFILES)
def test_it_never_lets_a_method_through_that_echoes_keys(kind: str, method: str) -> None:
    assert not is_let_through(kind, method, "/v1/chat/completions")


@pytest.mark.parametrize("kind", PROFILES)
def test_it_leaves_open_what_a_kind_serves(kind: str) -> None:
    profile = PROFILES[kind]
    for path in (*profile.paths, profile.health_path, profile.models_path):
        method = "POST" if path in INFERENCE_PATHS else "GET"
        for own_key in (True, False):
            for base in ("", "/base/v1"):
                assert is_let_through(kind, method, path, base, own_key=own_key), (method, path)


SHARED = [path for path in INFERENCE_PATHS if path.startswith("/v1/") and path.count("/") == 2]


@pytest.mark.parametrize("kind", sorted(set(PROFILES) - {"litellm"}))
@pytest.mark.parametrize("path", SHARED)
def test_it_leaves_every_inference_path_open(kind: str, path: str) -> None:
    assert is_let_through(kind, "POST", path)


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions", "/chat/completions", "/v1/embeddings", "/v1/models", "/v1/models/openai/gpt-4o",
     "/v1/audio/transcriptions", "/v1/images/generations", "/v1/messages", "/v1/messages/count_tokens", "/rerank",
     "/v2/rerank", "/engines/gpt-4o/chat/completions", "/openai/deployments/a/b/chat/completions", "/health",
     "/health/liveliness", "/", "/v1/responses"],
)  # fmt: skip
@pytest.mark.parametrize("base", ["", "/litellm", "/team/llm"])
def test_it_opens_inference_lists_and_health_of_litellm(path: str, base: str) -> None:
    assert is_let_through("litellm", "POST", path, base)


@pytest.mark.parametrize(
    "base", ["/v1/projects/p1/locations/l1/endpoints/openapi", "/resume", "/team/api", "/v1/model/x", "/internal"]
)
def test_it_does_not_judge_the_operators_own_base(base: str) -> None:
    assert is_let_through("openai-compatible", "POST", "/chat/completions", base)
    assert not is_let_through("openai-compatible", "GET", "/files", base)
    assert not is_let_through("openai-compatible", "GET", "/v1/projects/other", base)


def test_it_guards_an_account_only_where_the_endpoints_own_key_is_used() -> None:
    for method, path in GUARDED["openai"]:
        assert is_let_through("openai", method, path, own_key=False)
        assert not is_let_through("openai", method, path, own_key=True)


def test_it_takes_an_undetected_endpoint_for_any_kind() -> None:
    assert parse_backend_type("auto") == "auto"
    assert not is_let_through("openai-compatible", "POST", "/api/pull", own_key=False)


@pytest.mark.parametrize(
    ("kind", "opened", "expected"),
    [("ollama", ("ollama",), True), ("ollama", ("*",), True), ("ollama", ("vllm",), False), ("ollama", (), False)],
)
def test_it_knows_what_an_operator_opened(kind: str, opened: tuple[str, ...], expected: bool) -> None:
    assert is_opened(kind, opened) is expected


@pytest.mark.parametrize(
    ("path", "plain"),
    [("", "/"), ("/", "/"), ("//", "/"), ("/A/./b/../C/", "/a/c"), ("/%2541", "/a"), ("/..", "/"),
     ("/a/...", "/a/..."),
     ("/;x", "/;x"), ("/a;x/b", "/a/b"), ("/%ff", "/\ufffd"),
     ("/%252525252541", "/%2541")],
)  # fmt: skip
def test_it_writes_a_path_in_one_way(path: str, plain: str) -> None:
    assert normalise_path(path) == plain


noise = st.lists(
    st.sampled_from(["/", "//", "%2f", "\\", "api", "/api", "pull", "%70ull", "PULL", ".", ";a", "%20", "x"]),
    max_size=10,
).map("".join)


@given(noise, st.sampled_from(["", "/api", "/x/api", "/base"]))
def test_it_agrees_with_a_careless_backend(target: str, base: str) -> None:
    # Whatever passes is not the guarded path to a server that decodes, collapses slashes and folds letters.
    if not is_let_through("ollama", "POST", target, base):
        return
    sent = join_target(base, parse_target(target.encode())[0], preserve=True)
    assert "/api/pull" not in re.sub("[/\\\\]+", "/", unquote(sent)).lower()


def test_it_is_quick_on_long_paths() -> None:
    path = "/models" * 580
    assert not is_guarded(PROFILES["omlx"], "POST", path)
    assert normalise_path(path) == path
