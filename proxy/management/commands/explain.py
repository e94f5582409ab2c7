"""explain: what would become of a request, from the tables alone."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from endpoints import loading
from proxy.decision_words import STAGES, TRY_WHY, describe_dropped, describe_reason
from proxy.errors import OllaError
from proxy.explain_views import Question, build_asked, parse_header_lines
from proxy.rehearsal import explain

UNKNOWN = (
    "Read from the tables, without a running server: requests in flight, breakers, rests, rates, sessions and "
    "turns are those of a server that has just started."
)

OUTCOMES = {
    "answered_here": "Answered here: no endpoint is asked.",
    "routed": "Routed.",
    "fallback": "Routed elsewhere as a fallback.",
    "rejected": "Rejected at {stage}.",
}


class Command(BaseCommand):
    """Asks no server and needs none; /internal/explain asks the one that is running."""

    help = "Tells which endpoints a request would be sent to, in which order, and why the others would not."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("path", help="Path of the request, such as /olla/openai/v1/chat/completions.")
        parser.add_argument("--method", default="", help="POST where there is a model or body, else GET.")
        parser.add_argument("--model", help="The model, instead of a body that names it.")
        parser.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'", help="Repeatable.")
        parser.add_argument("--client", default="127.0.0.1", help="Address of the client.")
        parser.add_argument("--body", help="The body as text; - reads it from standard input.")
        parser.add_argument("--json", action="store_true", help="Everything, as JSON.")

    def handle(self, *_: Any, **options: Any) -> None:
        body = sys.stdin.read() if options["body"] == "-" else options["body"]
        try:
            asked = build_asked(
                Question(
                    path=options["path"],
                    method=options["method"],
                    model=options["model"],
                    headers=parse_header_lines(options["header"]),
                    client=options["client"],
                    body=body,
                )
            )
            loading.refresh(force=True)
        except OllaError as error:
            raise CommandError(error.message) from error
        except DatabaseError as error:
            raise CommandError(f"The database cannot be read: {error}") from error
        told = explain(asked, live_known=False)
        if options["json"]:
            self.stdout.write(json.dumps(told, indent=2))
            return
        for line in write_lines(told):
            self.stdout.write(line)
        self.stdout.write(f"\n{UNKNOWN}")


def write_lines(told: dict[str, Any]) -> Iterator[str]:
    """An explanation for people."""
    yield OUTCOMES[told["outcome"]].format(stage=STAGES[told["stage"]])
    if told["answer"]:
        yield f"Answer: {told['answer']['status']} {told['answer']['code']}: {told['answer']['message']}"
    if "endpoints" not in told:
        return
    why = f": {describe_reason(told['reason'])}" if told["reason"] else ""
    yield f"Strategy: {told['strategy'] or 'none, for no model is named'}{why}"
    yield f"Policy: {told['policy']}"
    for rule in told["rules"]:
        yield f"Rule {rule['name']!r}: {'matches' if rule['matched'] else 'does not match'}"
    if told["split"]:
        yield f"Shared out: {told['split']['percentage']} % to {', '.join(told['split']['inside']) or 'nobody'}"
    if told["reads_models_first"]:
        yield "Before that, the models of the endpoints would be read anew."
    for number, each in enumerate(told["tries"], 1):
        sent = f" as {each['sends_model']}" if each["sends_model"] not in {None, told["model"]} else ""
        turn = ", by turns" if each["turn"] else ""
        yield f"Try {number}: {each['endpoint']}{sent} ({TRY_WHY[each['why']]}{turn})"
    if told["tries_left_out"]:
        yield f"... and {told['tries_left_out']} more"
    for each in told["endpoints"]:
        if not each["kept"]:
            reason = describe_dropped(each["dropped"]) if each["dropped"] else describe_reason(told["reason"])
            yield f"Not {each['name']}: {reason} ({each['status']}, {each['state']})"
