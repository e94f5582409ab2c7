"""Names that are not the same model everywhere."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from endpoints import loading
from endpoints.drift import DriftRow, DriftVersion, build_drift
from endpoints.listed import ListedModel
from endpoints.models import DiscoveredModel, Endpoint
from tests.proxy.builders import make_endpoint, make_snapshot

X, Y = "0123456789abcdef" * 4, "fedcba9876543210" * 4


def test_it_tells_who_has_which_model_of_a_name() -> None:
    snapshot = make_snapshot(
        make_endpoint("a", models=[ListedModel("m", digest=X, size_bytes=5, modified_at=7.0)]),
        make_endpoint("b", models=[ListedModel("M:latest", digest=f"sha256:{Y}"), ListedModel("same", digest=X)]),
        make_endpoint("c", models=[ListedModel("m", digest=Y, size_bytes=6), ListedModel("same", digest=X)]),
        make_endpoint("d", models=["m"]),
    )
    assert build_drift(snapshot) == (
        DriftRow("m", (DriftVersion(Y, ("b", "c"), 6, None), DriftVersion(X, ("a",), 5, 7.0))),
    )


@pytest.mark.django_db(transaction=True)
def test_its_page_shows_names_digests_and_endpoints(admin_client: Client) -> None:
    page = reverse("admin:endpoints_discoveredmodel_drift")
    loading.refresh(force=True)
    assert "No name stands for different models." in admin_client.get(page).content.decode()
    for name, digest in (("one", X), ("<two>", Y)):
        endpoint = Endpoint.objects.create(name=name, url=f"http://127.0.0.1:{len(name)}")
        DiscoveredModel.objects.create(endpoint=endpoint, name="m", digest=digest, size_bytes=4096)
    loading.refresh(force=True)
    text = admin_client.get(page).content.decode()
    assert f'title="{X}">{X[:12]}<' in text
    assert "&lt;two&gt;" in text
    assert page in admin_client.get(reverse("admin:endpoints_discoveredmodel_changelist")).content.decode()
    loading.forget()


def test_its_page_is_for_those_who_may_view_models(client: Client, db: None) -> None:
    assert client.get(reverse("admin:endpoints_discoveredmodel_drift")).status_code == 302
