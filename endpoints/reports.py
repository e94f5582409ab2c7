"""Stub until the reports arrive."""

from enum import StrEnum


class ReportOutcome(StrEnum):
    RECORDED = "recorded"
    SUPERSEDED = "superseded"


async def report_unreachable(endpoint_id: int, reason: str, seen_at: float) -> ReportOutcome:
    return ReportOutcome.RECORDED
