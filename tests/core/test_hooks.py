"""Paths and who takes them, without any framework."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jidosystem import DefinitionError, HttpRequest, InvalidArguments
from jidosystem.core.hooks import HttpResponse, Receivers, check_path


def receivers(*paths: str) -> Receivers:
    """Each path is taken by one that answers with it and the key."""
    mounted = Receivers()
    for path in paths:

        async def receive(request: HttpRequest, key: str, path: str = path) -> HttpResponse:
            return HttpResponse(200, f"{path} {key}".encode())

        mounted.mount(path, receive, path)
    return mounted


async def asked(mounted: Receivers, path: str) -> str | None:
    answer = await mounted.receive(HttpRequest(method="POST", path=path))
    return None if answer is None else answer.body.decode()


async def test_a_fixed_path_goes_before_one_with_a_key() -> None:
    mounted = receivers("/hooks/{key}", "/hooks/all", "/{key}/hooks", "/{key}")
    assert await asked(mounted, "/hooks/all") == "/hooks/all "
    assert await asked(mounted, "/hooks/a b") == "/hooks/{key} a b"
    assert await asked(mounted, "/x/hooks") == "/{key}/hooks x"
    assert await asked(mounted, "/x") == "/{key} x"
    assert mounted.paths == ("/hooks/all", "/hooks/{key}", "/{key}/hooks", "/{key}")


@pytest.mark.parametrize("path", ["/hooks", "/hooks/", "/hooks/a/b", "/hooks/a/", "//hooks/a", "", "/other"])
async def test_what_nobody_takes_is_nobodys(path: str) -> None:
    assert await asked(receivers("/hooks/{key}"), path) is None


@given(st.text(), st.sampled_from(["/hooks/{key}", "/{key}/in", "/a/{key}/b"]))
def test_a_key_is_found_again_unless_it_has_a_slash(key: str, path: str) -> None:
    found = receivers(path).find(path.replace("{key}", key))
    if key and "/" not in key:
        assert found is not None and found[1] == key
    else:
        assert found is None


def test_a_path_has_one_owner_whatever_its_key_is_called() -> None:
    mounted = receivers("/hooks/{key}", "/all")
    mounted.check("/hooks/{key}", "/hooks/{key}")
    for path in ("/hooks/{key}", "/all"):
        with pytest.raises(DefinitionError, match="is taken by"):
            mounted.check(path, "another")


@given(st.text())
def test_whatever_is_given_is_a_path_or_refused(text: str) -> None:
    try:
        assert check_path(text).startswith("/")
    except ValueError:
        assert text not in ("/", "/a", "/a/{key}")


def test_a_body_that_is_no_json_is_the_senders_mistake() -> None:
    request = HttpRequest(method="POST", path="/x", body=b'{"a": [1]}')
    assert request.json() == {"a": [1]}
    with pytest.raises(InvalidArguments, match="the body of POST /x is no JSON"):
        HttpRequest(method="POST", path="/x", body=b"{").json()
    with pytest.raises(InvalidArguments):
        HttpRequest(method="POST", path="/x").json()
