"""The examples of score/README.md, run unchanged against a live service."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "score" / "README.md").read_text(encoding="utf-8")
SECTION = TEXT.partition("## Call it\n")[2].partition("\n## ")[0]
EXAMPLES = re.findall(r"^```(\w+)\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
HERE = "http://localhost:8000"
SCORES = [(language, code) for language, code in EXAMPLES if f"{HERE}/score" in code]
((_, FEEDBACK),) = [(language, code) for language, code in EXAMPLES if f"{HERE}/feedback" in code]


def run(language, code, server):
    """What an example prints when it calls this server instead of the one on :8000."""
    assert HERE in code
    words = {
        "sh": ["sh", "-euc"],
        "python": [sys.executable, "-c"],
        "javascript": ["node", "--input-type=module", "--eval"],
    }[language]
    for program in ("curl",) if language == "sh" else (words[0],):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on PATH")
    done = subprocess.run(
        [*words, code.replace(HERE, server.url)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_table_of_modules_names_each_module_and_no_other():
    table = TEXT.partition("| module |")[2].partition("\n\n")[0]
    named = [cell for row in table.splitlines() for cell in re.findall(r"`([^`]+)`", row.split("|")[1])]
    package = ROOT / "score"
    modules = {str(path.relative_to(package)) for path in package.rglob("*.py") if path.name != "__init__.py"}
    pages = {name for name in modules if name.startswith("pages/")}
    assert sorted(named) == sorted(modules - pages - {"__main__.py"} | {"pages/"})


def test_there_is_an_example_in_each_language():
    assert ["sh", "python", "javascript"] == [language for language, _ in SCORES]


@pytest.mark.parametrize(("language", "code"), SCORES, ids=[language for language, _ in SCORES])
def test_an_example_asks_and_shows_what_was_answered(language, code, server):
    said = run(language, code, server)
    if language == "sh":
        (result,) = json.loads(said)["results"]
        assert set(result["failure"]) == {"comp1", "comp2", "comp3", "comp4"}
    else:
        assert said.startswith("1 {")
        assert "probability" in said
        assert "1 of 2 readings of volt are missing" in said


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_a_refusal_shows_its_reason(language, server):
    (code,) = [code for known, code in SCORES if known == language]
    broken = code.replace("[442.0, 451.3]", "[442.0]")
    assert broken != code
    with pytest.raises(AssertionError, match="1 values, but datetime has 2"):
        run(language, broken, server)


def test_the_example_of_feedback_is_stored(server):
    if "/feedback" not in httpx.get(f"{server.url}/openapi.json").json()["paths"]:
        pytest.skip("this service has no /feedback")
    rows = {"failures": 1, "maint": 1, "retracted": 0, "complete_until": 1}
    assert rows == json.loads(run("sh", FEEDBACK, server))["stored"]


def test_the_one_request_of_the_front_page_is_answered(server):
    (command,) = re.findall(r"^curl .*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert json.loads(run("sh", command.replace("localhost:8000", HERE), server))["results"]
