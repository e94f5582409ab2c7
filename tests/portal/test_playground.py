"""The playground's page: who may open it, what it offers, hostile names, its weight."""

from __future__ import annotations

import html
import re

import pytest

from olla_site.portal.offered import fit
from tests.portal.fleet_rows import endpoint, lease, load_now

pytestmark = pytest.mark.django_db
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>\u202e'


@pytest.fixture
def user(sign_in):
    return sign_in("Users")


def read(client, **query) -> str:
    load_now()
    response = client.get("/playground/", query)
    assert response.status_code == 200
    return response.content.decode()


def chosen(text: str) -> str:
    """The model that stands in the first column."""
    found = re.search(r'id="model-a"[^>]* value="([^"]*)"', text)
    assert found is not None
    return html.unescape(found[1])


def offered(text: str, name: str) -> list[str]:
    """What a datalist holds."""
    found = re.search(rf'<datalist id="{name}">(.*?)</datalist>', text, re.DOTALL)
    assert found is not None
    return [html.unescape(each) for each in re.findall(r'<option value="([^"]*)">', found[1])]


def test_it_is_in_the_header_of_those_who_may_try(user, viewer):
    assert b'href="/playground/"' in user.get("/connect/").content
    assert b'href="/playground/"' not in viewer.get("/connect/").content


def test_it_offers_models_and_endpoints(user):
    lease()
    endpoint("gpu-1", "llama3", "phi4")
    endpoint("gpu-2", "llama3")

    text = read(user)

    assert offered(text, "model-names") == ["llama3", "phi4"]
    assert offered(text, "endpoint-names") == ["gpu-1", "gpu-2"]


def test_it_begins_with_a_model_that_chats(user):
    lease()
    endpoint("gpu-1", "nomic-embed-text", "llama3")

    assert chosen(read(user)) == "llama3"


@pytest.mark.parametrize("name", ["phi4", "org/model:8b-q4 K+M", EVIL])
def test_it_begins_with_the_model_the_address_names(user, name):
    lease()
    endpoint("gpu-1", "llama3")

    assert chosen(read(user, model=name)) == name


def test_it_cuts_a_name_that_no_model_has(user):
    assert len(chosen(read(user, model="x" * 10_000))) == 500


def test_it_shows_hostile_names_as_text(user):
    lease()
    endpoint(EVIL, EVIL)

    text = read(user, model=EVIL)

    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert offered(text, "model-names") == [EVIL]


def test_it_says_when_nobody_can_answer(user, administrator):
    assert "No endpoint is configured yet" in read(user)
    assert 'href="/fleet/add/"' not in read(user)
    assert 'href="/fleet/add/"' in read(administrator)


def test_it_stays_light_with_many_models_of_long_names(user, django_assert_max_num_queries):
    lease()
    for number in range(40):
        models = [f"{number}-{i}-{'<' * 200}" for i in range(50)]
        endpoint(f"{'é&' * 40}-{number}", *models)
    load_now()

    with django_assert_max_num_queries(8):
        content = user.get("/playground/").content

    assert len(content) < 100_000
    assert len(offered(content.decode(), "model-names")) > 30


def test_it_keeps_as_many_names_as_fit():
    assert fit(["abc", "d" * 100, "e"], room=150) == ["abc", "d" * 100]
    assert fit(["&" * 100], room=150) == []
    assert fit(["abc", "abc", "d"], room=50) == ["abc", "d"]
