"""The page at /docs: examples that run, and in a real browser Swagger UI that sends dry runs, legible on a phone."""

import html
import re
import shutil
import subprocess
import sys

import httpx
import pytest

READY = "document.querySelectorAll('.opblock').length > 3"
OPEN = "document.querySelector('#operations-Scoring-score .opblock-summary-control').click()"
FILLED = "!!document.querySelector('#operations-Scoring-score .body-param__text')?.value"
EXECUTE = "document.querySelector('#operations-Scoring-score .execute')"
STATUS = (
    "document.querySelector('#operations-Scoring-score .live-responses-table tbody .response-col_status')?.textContent"
)
TYPE = """(field => {
  Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(field, '%s');
  field.dispatchEvent(new Event('input', {bubbles: true}));
})(document.querySelector('.auth-container input'))"""


@pytest.fixture
def read(look):
    """Open /docs of a service in a browser of its own."""

    def start(url, **how):
        shown = look(f"{url}/docs", **how)
        shown.wait(READY, 120)
        return shown

    return start


def state(url):
    return httpx.get(f"{url}/state").json()


def test_what_is_sent_is_the_fleets_example_and_a_dry_run(serve, read):
    url = serve().url
    shown = read(url)
    shown.ask(OPEN)
    shown.wait(FILLED)
    assert shown.ask("document.querySelector('.body-param__text').value").startswith('{\n  "telemetry"')
    shown.ask(f"{EXECUTE}.click()")
    shown.wait(f"({STATUS} || '').startsWith('200')")
    now = state(url)
    assert (1, 0, 1) == (now["dry_run"], now["stored"], now["machines_scored"])
    assert "Closed-Loop-Dry-Run: 1" in shown.ask("document.querySelector('.curl-command').textContent")
    assert [] == shown.problems


def test_where_tokens_are_asked_for_one_can_be_given(serve, read, tokens):
    path, token = tokens
    url = serve(tokens_file=path).url
    shown = read(url)
    shown.ask(OPEN)
    shown.wait(FILLED)
    shown.ask(f"{EXECUTE}.click()")
    shown.wait(f"({STATUS} || '').startsWith('401')")
    shown.ask("document.querySelector('.scheme-container .authorize').click()")
    shown.wait("!!document.querySelector('.auth-container input')")
    shown.ask(TYPE % token)
    shown.ask("document.querySelector('.modal-ux .authorize').click()")
    shown.ask("document.querySelector('.modal-ux .btn-done').click()")
    shown.ask(f"{EXECUTE}.click()")
    shown.wait(f"({STATUS} || '').startsWith('200')")
    assert 0 == httpx.get(f"{url}/state").json()["stored"]


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_every_field_has_a_name(server, read, dark):
    shown = read(server.url, width=360, height=740, dark=dark)
    shown.ask(OPEN)
    shown.wait(f"!!{EXECUTE}")
    assert shown.ask("document.documentElement.scrollWidth") <= 360
    assert dark is shown.ask("document.documentElement.classList.contains('dark-mode')")
    unnamed = "[...document.querySelectorAll('#try :is(input, select, textarea)')].filter((field) => "
    assert 0 == shown.ask(f"{unnamed}!field.labels.length && !field.hasAttribute('aria-label')).length")
    assert 0 == shown.ask(
        "[...document.querySelectorAll('#try button')].filter((button) => "
        "!button.textContent.trim() && !button.hasAttribute('aria-label')).length"
    )
    assert server.url in shown.ask("document.querySelector('.call pre').textContent")
    assert [] == shown.problems


def test_it_loads_nothing_from_elsewhere_and_runs_no_inline_script_but_its_own(server):
    answer = httpx.get(f"{server.url}/docs")
    links = re.findall(r"(?:src|href)=\"([^\"]*)\"", answer.text)
    assets = {"docs/swagger-ui.css", "docs/swagger-ui-bundle.js"}
    inside = {"./", "openapi.json", "metrics", "version"}
    assert inside | assets == {link for link in links if not link.startswith(("#", "data:"))}
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for asset in assets:
        got = httpx.get(f"{server.url}/{asset}")
        assert got.headers["content-type"].startswith(("text/css", "text/javascript"))
        assert len(got.content) > 100_000


def test_without_scripts_it_lists_each_route_and_each_status(server):
    document = httpx.get(f"{server.url}/openapi.json").json()
    text = httpx.get(f"{server.url}/docs").text
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            section = text.partition(f"<code>{method.upper()} {path}</code>")[2].partition("<h3>")[0]
            assert list(operation["responses"]) == re.findall(r"<tr><th>(\d+)</th>", section)
    assert "<code>errors</code> points to each fault" in text
    for name in document["components"]["schemas"]:
        assert f"<summary>{name}</summary>" in text


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
def test_an_example_runs_as_it_stands(language, server):
    words = {
        "curl": ["sh", "-euc"],
        "Python": [sys.executable, "-c"],
        "JavaScript": ["node", "--input-type=module", "--eval"],
    }[language]
    program = "curl" if language == "curl" else words[0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not on PATH")
    text = httpx.get(f"{server.url}/docs").text
    (code,) = re.findall(rf"<summary>{language}</summary><pre[^>]*>(.*?)</pre>", text, re.DOTALL)
    code = html.unescape(code).replace("http://localhost:8000", server.url)
    before = state(server.url)["stored"]
    done = subprocess.run([*words, code], capture_output=True, text=True, timeout=60, check=False)
    assert 0 == done.returncode, done.stderr
    assert "comp1" in done.stdout
    assert before == state(server.url)["stored"]
