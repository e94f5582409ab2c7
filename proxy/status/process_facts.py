"""`/internal/process`: memory, garbage collection and tasks of this process.

The groups and fields carry the names dashboards of the reference know. Python has no heap like Go's: the memory
figures are the kernel's for the process, `goroutines` counts tasks and threads, `allocations` CPython's blocks.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import resource
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endpoints.quantities import write_size
from proxy.status import formats

_MANY_TASKS = ((1000, "CONCERNING"), (500, "ELEVATED"), (100, "NORMAL"))
_PRESSURE = ((0.9, "HIGH"), (0.7, "MEDIUM"))
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_STATUS = Path("/proc/self/status")


@dataclass(slots=True)
class CollectorWatch:
    """Times every run of the garbage collector."""

    runs: int = 0
    seconds: float = 0.0
    last_at: float = 0.0  # Unix time
    _begun: float = 0.0

    def __call__(self, phase: str, _info: dict[str, int]) -> None:
        """Called by the collector before and after each run."""
        if phase == "start":
            self._begun = time.perf_counter()
            return
        self.runs += 1
        self.seconds += time.perf_counter() - self._begun
        self.last_at = time.time()


watch = CollectorWatch()
gc.callbacks.append(watch)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, as the kernel counts them."""

    resident: int
    virtual: int
    private: int
    stack: int
    peak: int
    limit: int  # what the process may use: its container's limit, or the machine's memory

    @property
    def pressure(self) -> str:
        """How near the limit is."""
        share = self.resident / self.limit if self.limit else 0.0
        return next((word for least, word in _PRESSURE if share > least), "LOW")


def read_memory() -> Memory:
    """This process's memory now; what the system does not tell is 0."""
    fields: dict[str, int] = {}
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            name, _, value = line.partition(":")
            if value.endswith(" kB"):
                fields[name] = int(value.split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    resident = fields.get("VmRSS", peak)
    return Memory(
        resident=resident,
        virtual=fields.get("VmSize", resident),
        private=fields.get("RssAnon", resident),
        stack=fields.get("VmStk", 0),
        peak=fields.get("VmHWM", peak),
        limit=_read_limit(),
    )


def _read_limit() -> int:
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        machine = 0
    try:
        text = _CGROUP_LIMIT.read_text().strip()
    except OSError:
        return machine
    return min(int(text), machine or int(text)) if text.isdecimal() else machine


def build_process(uptime: float, collector: CollectorWatch = watch) -> dict[str, Any]:
    """The whole answer. Call it on the event loop, whose tasks it counts."""
    memory = read_memory()
    tasks = len(asyncio.all_tasks())
    return {
        "memory": {
            "heap_alloc": write_size(memory.resident),
            "heap_sys": write_size(memory.virtual),
            "heap_inuse": write_size(memory.private),
            "heap_released": write_size(max(0, memory.peak - memory.resident)),
            "stack_inuse": write_size(memory.stack),
            "total_alloc": write_size(memory.peak),
            "memory_pressure": memory.pressure,
            "resident_bytes": memory.resident,
            "virtual_bytes": memory.virtual,
            "peak_bytes": memory.peak,
            "limit_bytes": memory.limit,
        },
        "garbage_collection": _build_collections(collector, uptime),
        "goroutines": {
            "health_status": next((word for least, word in _MANY_TASKS if tasks > least), "HEALTHY"),
            "count": tasks + threading.active_count(),
            "cgo_calls": 0,
            "tasks": tasks,
            "threads": threading.active_count(),
        },
        "runtime": {
            "uptime": formats.long_duration(uptime),
            "go_version": python_name(),
            "python_version": platform.python_version(),
            "num_cpu": os.cpu_count() or 1,
            "gomaxprocs": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1,
            "cpu_seconds": round(time.process_time(), 3),
        },
        "allocations": _build_allocations(),
    }


def python_name() -> str:
    """The runtime, where dashboards expect Go's version."""
    return f"Python {platform.python_version()}"


def _build_collections(collector: CollectorWatch, uptime: float) -> dict[str, Any]:
    ran = collector.runs > 0
    last = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(collector.last_at))
    return {
        "last_gc": last if ran else "",
        "total_gc_time": formats.long_duration(collector.seconds) if ran else "",
        "avg_gc_pause": formats.long_duration(collector.seconds / collector.runs) if ran else "",
        "gc_cpu_fraction": round(collector.seconds / uptime, 6) if uptime > 0 else 0.0,
        "num_gc_cycles": collector.runs,
    }


def _build_allocations() -> dict[str, int]:
    """Blocks in use; those collected as cycles are all that is known of what was freed."""
    blocks = sys.getallocatedblocks()
    freed = sum(each["collected"] for each in gc.get_stats())
    return {"total_mallocs": blocks + freed, "total_frees": freed, "net_objects": blocks}
