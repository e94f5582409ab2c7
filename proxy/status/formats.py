"""Numbers and times as the status routes write them. (pure)"""

from __future__ import annotations

import math
from datetime import datetime

NOT_KNOWN = "N/A"
NEVER = "0001-01-01T00:00:00Z"  # a time that has not come yet, in a field that is always there
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def percent(part: float, whole: float) -> str:
    """A share: `0%` and `100%` when exactly that, else with one decimal; `N/A` when there is no whole."""
    if whole <= 0:
        return NOT_KNOWN
    share = part * 100 / whole
    return f"{share:.0f}%" if share in (0, 100) else f"{share:.1f}%"


def latency(milliseconds: float) -> str:
    """Whole milliseconds below a second, else seconds with one decimal."""
    whole = int(milliseconds)
    return f"{whole}ms" if whole < 1000 else f"{whole / 1000:.1f}s"


def long_duration(seconds: float) -> str:
    """`2.9ms`, `45s`, `5m3s`, `51h2m9s`: hours never become days."""
    if seconds < 1:
        unit, value = ("ms", seconds * 1e3) if seconds >= 1e-3 else ("µs", seconds * 1e6)
        return f"{value:.1f}".removesuffix(".0") + unit if seconds > 0 else "0s"
    whole = int(seconds)
    hours, minutes = whole // _HOUR, whole % _HOUR // _MINUTE
    if hours:
        return f"{hours}h{minutes}m{whole % _MINUTE}s"
    return f"{minutes}m{whole % _MINUTE}s" if minutes else f"{whole}s"


def short_duration(seconds: float) -> str:
    """`42s`, `17m`, `2h 30m`, `3d 4h`; the last unit below an hour is rounded."""
    if seconds < _MINUTE:
        return f"{_round(seconds)}s"
    if seconds < _HOUR:
        return f"{_round(seconds / _MINUTE)}m"
    whole = int(seconds)
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE}m"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR}h"


def ago(moment: float | None, now: float) -> str:
    """How long ago something was: one unit; `never` without a moment."""
    return f"{_one_unit(max(0.0, now - moment))} ago" if moment else "never"


def until(moment: float | None, now: float) -> str:
    """How long until something is: `now` when it is due, `unknown` without a moment."""
    if not moment:
        return "unknown"
    return f"in {_one_unit(moment - now)}" if moment > now else "now"


def ratio(part: int, whole: int) -> str:
    """`2/3`."""
    return f"{part}/{whole}"


def stamp(moment: float) -> str:
    """RFC 3339 in the installation's time zone, with as many digits as the time has."""
    local = datetime.fromtimestamp(moment).astimezone()
    text = local.strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{local.microsecond:06d}".rstrip("0").rstrip(".")
    zone = local.strftime("%z")
    return f"{text}{fraction}" + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:5]}")


def milliseconds(value: float | None) -> float | None:
    """A measured time as a number, to a tenth."""
    return None if value is None else round(value, 1)


def _one_unit(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{int(seconds)}s"
    if seconds < _HOUR:
        return f"{_round(seconds / _MINUTE)}m"
    if seconds < _DAY:
        return f"{_round(seconds / _HOUR)}h"
    return f"{_round(seconds / _DAY)}d"


def _round(value: float) -> int:
    """Half up, as people round."""
    return math.floor(value + 0.5)
