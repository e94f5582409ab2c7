"""Where `make real-clients` puts the command-line clients of this system and processor."""

from __future__ import annotations

import platform
from pathlib import Path

_MODULES = Path(__file__).with_name("npm") / "node_modules"
_SYSTEM = f"{platform.system().lower()}-{'arm64' if platform.machine() in ('arm64', 'aarch64') else 'x64'}"
CLAUDE = _MODULES / "@anthropic-ai" / f"claude-code-{_SYSTEM}" / "claude"
OPENCODE = _MODULES / f"opencode-{_SYSTEM}" / "bin" / "opencode"
