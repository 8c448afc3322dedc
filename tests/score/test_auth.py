"""A token is required unless AUTH=open, and no message contains one."""

import json

import httpx
import pytest

from score.auth import Tokens
from score.problems import Problem
from score.settings import SettingsError

TOKEN, OTHER = "t" * 16, "o" * 32


@pytest.fixture
def tokens_file(tmp_path):
    path = tmp_path / "tokens.json"
    callers = {"press-shop": {"token": TOKEN, "scopes": ["score"]}, "cmms": {"token": OTHER, "scopes": ["feedback"]}}
    path.write_text(json.dumps(callers))
    return path


def status(tokens, header, scope="score"):
    with pytest.raises(Problem) as caught:
        tokens.caller(header, scope)
    return caught.value.status


def test_a_known_token_has_a_name_and_its_scopes(tokens_file):
    tokens = Tokens(tokens_file)
    assert tokens.caller(f"Bearer {TOKEN}", "score") == "press-shop"
    assert tokens.caller(f"bearer  {OTHER}", "feedback") == "cmms"
    assert status(tokens, f"Bearer {OTHER}", "score") == 403
    assert status(tokens, f"Bearer {TOKEN}", "feedback") == 403


@pytest.mark.parametrize("header", ["", TOKEN, "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"])
def test_anything_else_is_unknown(tokens_file, header):
    assert status(Tokens(tokens_file), header) == 401


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "[]",
        "{}",
        '{"a": {"token": "tttttttttttttttt"}}',
        '{"a": {"token": "tttttttttttttttt", "scopes": ["admin"]}}',
        '{"a": {"token": "tttttttttttttttt", "scopes": ["score"], "more": 1}}',
        '{"a": {"token": "ttttttttttttttt", "scopes": ["score"]}}',
        '{"a": {"token": "tttttttttttttttt", "scopes": []}, "b": {"token": "tttttttttttttttt", "scopes": []}}',
        '{"a": {"token": "ttttttt ttttttttttt", "scopes": ["score"]}}',
        '{"a": {"token": "tttttttttttttttt\\n", "scopes": ["score"]}}',
        '{"a": {"token": "tttttttttttttttt\u00e9", "scopes": ["score"]}}',
        '{"a": {"token": "tttttttttttttttt", "scopes": ["score"]}, "a": {"token": "uuuuuuuuuuuuuuuu", "scopes": []}}',
        '{"a": {"token": "tttttttttttttttt", "token": "uuuuuuuuuuuuuuuu", "scopes": ["score"]}}',
        b"\xff",
    ],
)
def test_a_file_that_is_no_such_thing_stops_the_start_by_name(tmp_path, content):
    path = tmp_path / "tokens.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match=r"^AUTH_TOKENS_FILE=") as caught:
        Tokens(path)
    assert "ttttttt" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": {"token": "ttttttt ttttttttttt", "scopes": []}}', "the token of a must consist of A-Z a-z 0-9"),
        ('{"a": {"token": "tttttttttttttttt\u00e9", "scopes": []}}', "clients cannot send any other in a header"),
        (
            '{"a": {"token": "tttttttttttttttt", "scopes": []}, "a": {"token": "uuuuuuuuuuuuuuuu", "scopes": []}}',
            "the name a occurs twice in one object: give each caller one entry",
        ),
    ],
)
def test_what_would_never_match_or_is_named_twice_is_told_with_its_fix(tmp_path, content, said):
    path = tmp_path / "tokens.json"
    path.write_text(content)
    with pytest.raises(SettingsError) as caught:
        Tokens(path)
    assert said in str(caught.value)


@pytest.mark.parametrize("token", ["a-._~+/b" * 2, "c" * 16 + "=="])
def test_every_token_that_loads_is_known_when_it_is_sent(tmp_path, serve, token):
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"a": {"token": token, "scopes": ["score"]}}))
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    assert httpx.post(f"{serve(tokens_file=path).url}/score", content=b"{}", headers=headers).status_code == 422


def test_over_http_the_token_is_asked_before_the_body_and_its_name_is_logged(serve, tokens_file):
    server = serve(tokens_file=tokens_file)
    with httpx.Client(base_url=server.url, headers={"Content-Type": "application/json"}) as client:
        answer = client.post("/score", content=b"{}")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert client.post("/score", content=b"{}", headers={"Authorization": f"Bearer {OTHER}"}).status_code == 403
        assert client.post("/score", content=b"{}", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 422
        for path in ("/livez", "/readyz", "/version", "/metrics", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200
