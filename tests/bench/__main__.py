"""`python -m tests.bench [--quick]`: measure, print a table, write docs/performance.md (not with --quick)."""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.bench import measures
from tests.bench.measures import JSON_BODY, STREAM_BODY, PacedStreams, percentile
from tests.bench.processes import (
    bare_relay,
    constant_upstream,
    ollaserver_alone,
    product,
    resident_bytes,
    uvicorn_alone,
)
from tests.bench.upstream import CHUNKS
from tests.translation import cost

REPORT = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
Row = tuple[str, str]
# Measured in runs like this one, which cannot choose how busy the host is.
TAILS = """\
How late the latest are depends on what the machine's host gives to others meanwhile. p99 / p50 by that share, with
the bare relay's beside it, in runs of one day:

| Taken by the host | product | bare relay |
|---|---|---|
| 0.2% | 2.68 | 2.49 |
| 1.7% | 2.69 | 3.13 |
| 9.4% | 4.08 | 3.75 |
| 19.4% | 4.57 | 4.68 |
| 26.3% | 4.26 | 4.54 |
"""
# What profiles have led to; measured when each was made, before and after taken in turns.
MENDS = """## Mends so far

| Mend | Before | After |
|---|---|---|
| Decisions are remembered for equal requests | 37 us | 3 us |
| Plain structs for what is made for every request | 28 us | 11 us |
| Headers to the endpoint, planned for each | 20 us | 7 us |
| The same, names of headers judged once | 6.0 us | 3.4 us |
| Headers of our own on the answer | 12 us | 2 us |
| Requests leave no cycle of references behind | a collection of 7 to 20 ms every 250 requests | none |
| Request log: 25 rows by one statement, few hand-overs of the interpreter's lock | 110 us | 60 us |
| Log, statistics and lines told of 16 requests at a time; lines leave in one write | 60 us | 15 us |
| Request lines render once what many share | 13.5 us | 8.2 us |
| Reading what an answer told of its cost | 8.0 us | 6.1 us |
| A JSON request, all of the above since log and statistics came | 777 - 890 - 938 us | 558 - 585 - 630 us |
| The log keeps its database connection | 628 us a JSON request | 605 us |
| A millisecond between the log's statements | p99 at one client 7.1 ms (the bare relay's 5.9) | 6.1 ms |
| 8 requests told of and 12 lines written at a time, where it was 16 and 32 | p99 / p50 at one client 4.0 | 3.2 |
| Headers read, and written to the endpoint, once for what clients repeat | 26 us | 15 us |
| Numbers of a request line written as JSON is | 13 us | 10 us |
| As many requests told of at once as are open, where it was 8 | 541 us a JSON request at 32 clients | 506 us |
| A JSON request, these three; two runs of ten turns each | ratio 1.59, 1.68 | 1.47, 1.47 |
| Successes that are alike counted in one go, told of as lists | statistics 8.1 us | 3.6 to 5.7 us |
| Request lines no longer collected a second time; this and the one before | 498 us a JSON request | 468 us |
| What headers, clients and decisions repeat, worked out once | 185 us of a request but its sockets | 163 us |
"""


def measure(quick: bool) -> tuple[list[Row], list[float]]:
    """Every figure as (name, text), and the latencies at one client."""
    scale = 4 if quick else 1
    rows: list[Row] = []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        port, pid = stack.enter_context(constant_upstream())
        ours = stack.enter_context(product(port, Path(folder)))
        relay = stack.enter_context(bare_relay(port))
        rows.append(("Memory at start", f"{resident_bytes(ours.pid) / 1e6:.0f} MB"))
        rows.append(("Memory of one open stream", f"{measures.memory_per_stream(ours, 256) / 1024:.1f} KB"))
        spent, rate = measures.saturation(port, pid, measures.requests_of(JSON_BODY)[1], 8000 // scale)
        rows.append(("Constant upstream alone", f"{spent:.0f} us CPU a request, {rate:.0f} requests/s"))
        # Many short turns: what disturbs the machine lasts longer than one.
        for name, body, total in (("JSON request", JSON_BODY, 960), ("64-chunk stream", STREAM_BODY, 320)):
            mine, theirs = measures.requests_of(body)
            result = measures.compare_cpu(
                (ours, mine), (relay, theirs), total=total // scale, concurrency=32, turns=3 if quick else 61
            )
            rows.append((f"{name}: product, us CPU", result.product.text()))
            rows.append((f"{name}: bare relay, us CPU", result.yardstick.text()))
            rows.append((f"{name}: ratio", result.ratio.text(".2f")))
        spread = measures.translation_cost(ours, total=1200 // scale, turns=3 if quick else 7)
        added = (spread.product.middle - spread.yardstick.middle) / CHUNKS
        rows.append(("64-chunk stream translated: product, us CPU", spread.product.text()))
        rows.append(("The same, added to relaying it", f"{added:.1f} us CPU a chunk"))
        mine, theirs = measures.requests_of(JSON_BODY)
        single = measures.latency_at_one((ours, mine), (relay, theirs), total=8800 // scale, turns=11)
        rows.append(("Latency at one client, product", describe_latency(single.ours)))
        rows.append(("Latency at one client, bare relay", describe_latency(single.yardstick)))
        rows.append(("p99 / p50 at one client, product", single.ours_tail.text(".2f")))
        rows.append(("p99 / p50 at one client, bare relay", single.yardstick_tail.text(".2f")))
        ratio = percentile(single.ours, 0.99) / percentile(single.yardstick, 0.99)
        rows.append(("p99 at one client, product to bare relay", f"{ratio:.2f}"))
        rows.append(("Taken by the machine's host meanwhile", f"{single.stolen:.1%} of the processors' time"))
        streams = 256 // scale
        for name, seconds in (("staggered over 3 s", 3.0), ("all at one instant", 0.0)):
            paced = measures.paced_streams(ours, streams=streams, pace=50, spread=seconds)
            rows.append((f"{streams} paced streams, {name}", describe_paced(paced)))
        server, uvicorn = stack.enter_context(ollaserver_alone()), stack.enter_context(uvicorn_alone())
        result = measures.compare_cpu(
            (server, mine), (uvicorn, mine), total=8000 // scale, concurrency=32, turns=3 if quick else 7
        )
        rows.append(("Server alone: OllaServer, us CPU", result.product.text()))
        rows.append(("Server alone: uvicorn, us CPU", result.yardstick.text()))
        rows.append(("Server alone: ratio", result.ratio.text(".2f")))
        rows += translation_rows()
        rows += request_log_rows()
        rows.append(("Memory at the end", f"{resident_bytes(ours.pid) / 1e6:.0f} MB"))
    return rows, single.ours


def request_log_rows() -> list[Row]:
    """What the request log costs, measured in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.request_log"]
    told = subprocess.run(command, cwd=REPORT.parents[1], capture_output=True, text=True, check=True).stdout
    return [(name, figure) for name, _, figure in (line.partition(": ") for line in told.splitlines())]


def translation_rows() -> list[Row]:
    """What the Anthropic translation adds."""
    rows: list[Row] = [
        ("Anthropic translation, text stream", f"{cost.chunk_cost(cost.text_chunks()) * 1e6:.1f} us CPU a chunk"),
        ("Anthropic translation, tool stream", f"{cost.chunk_cost(cost.tool_chunks()) * 1e6:.1f} us CPU a chunk"),
    ]
    for shape, build in cost.SHAPES.items():
        body = build()
        name = f"Anthropic translation, request of {len(body) / 1e6:.1f} MB, {shape}"
        rows.append((name, f"{cost.request_cost(body) * 1e3:.1f} ms CPU"))
    body = cost.conversation(5_000, 800)
    figure = f"{cost.request_cost(body, 3) * 1e3:.0f} ms CPU, longest step {cost.longest_step(body) * 1e3:.1f} ms"
    return [*rows, (f"Anthropic translation, request of {len(body) / 1e6:.0f} MB, 20,000 turns", figure)]


def describe_latency(ordered: list[float]) -> str:
    """Percentiles in milliseconds."""
    shown = [f"p{share * 100:g} {percentile(ordered, share) * 1e3:.2f}" for share in (0.5, 0.9, 0.99, 0.999)]
    return f"{', '.join(shown)}, max {ordered[-1] * 1e3:.2f} ms"


def describe_paced(paced: PacedStreams) -> str:
    """First byte, lateness and arrivals of paced streams."""
    p50, p99 = percentile(paced.first, 0.5) * 1e3, percentile(paced.first, 0.99) * 1e3
    return (
        f"first byte p50 {p50:.1f} ms, p99 {p99:.1f} ms; latest chunk {paced.lateness * 1e3:.0f} ms late; "
        f"{paced.arrivals} of {paced.wanted} chunks arrived apart"
    )


def histogram(readings: list[float]) -> str:
    """Latencies at one client in bars."""
    edges = [0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 8, 15, 30, float("inf")]
    lines, low = [], 0.0
    for high in edges:
        count = sum(low <= each * 1e3 < high for each in readings)
        lines.append(f"{low:>5g} - {high:<5g} ms {count:>6} {'#' * round(60 * count / len(readings))}")
        low = high
    return "\n".join(lines)


def report(rows: list[Row], readings: list[float]) -> str:
    """docs/performance.md."""
    names = ("daphne", "twisted", "httptools", "httpx", "aiohttp", "django")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    table = "\n".join(f"| {name} | {text} |" for name, text in rows)
    return f"""# Performance

Measured by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {platform.machine()}, 2 shared cores, Python
{platform.python_version()}, {versions}. The machine is noisy: trust the ratios, which are taken turn by turn in
one run. Three numbers are the least, the middle and the greatest of the turns.

The product runs as `manage.py serve` with its defaults (access lines written to a file) before one endpoint;
CPU is that of all its web processes. The bare relay is an ASGI application that relays with aiohttp and does
nothing else, under the same server. The upstream sends constant bytes; its own cost shows that it is not what
limits.

| Figure | Value |
|---|---|
{table}

Latencies of single requests over one connection, product:

```
{histogram(readings)}
```

{TAILS}
{MENDS}"""


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="A quarter of the load; writes no file.")
    options = parser.parse_args()
    rows, readings = measure(options.quick)
    for name, text in rows:
        print(f"{name:<48} {text}")
    if not options.quick:
        REPORT.write_text(report(rows, readings))


if __name__ == "__main__":
    main()
