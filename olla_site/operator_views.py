"""`POST /operator/token`: an operator token for the page that asks, such as the playground."""

from __future__ import annotations

import time

from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from proxy.operator_token import LIFETIME, Scope, issue_token

# Who may see endpoints may see why one was chosen, and try one of them: both change nothing. One right is enough.
SCOPE_PERMISSIONS = {
    Scope.TRACE: ("portal.view", "portal.try", "endpoints.view_endpoint"),
    Scope.PIN: ("portal.try", "endpoints.view_endpoint"),
}


@require_POST
@never_cache
def issue(request: HttpRequest) -> JsonResponse:
    """A token with the scopes asked for (`scopes=trace,pin`; all of them when none is named).

    401 without a session and 403 without the permission, as JSON: a page asks, not a person.
    """
    if not request.user.is_authenticated:
        return _refuse(401, "Sign in first.")
    asked = [part.strip() for part in request.POST.get("scopes", "").split(",") if part.strip()]
    unknown = sorted(set(asked) - set(Scope))
    if unknown:
        return _refuse(400, f"There is no scope {unknown[0][:50]!r}. Known: {', '.join(Scope)}.")
    scopes = [Scope(each) for each in asked] or list(Scope)
    for scope in scopes:
        if not any(request.user.has_perm(each) for each in SCOPE_PERMISSIONS[scope]):
            return _refuse(403, f"Your account may not have a token of scope {scope}.")
    now = time.time()
    token = issue_token(int(request.user.pk), scopes, now)
    return JsonResponse({"token": token, "scopes": sorted(scopes), "expires_at": int(now) + LIFETIME})


def _refuse(status: int, message: str) -> JsonResponse:
    return JsonResponse({"error": {"message": message}}, status=status)
