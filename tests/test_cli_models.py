"""`escalade models`: the files, the prices, and one real call to each model over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from escalade import cli
from escalade.agents.transports import LiteLLM
from escalade.registry.prices import frozen_prices
from tests.servers.fault_server import FaultServer

pytestmark = [
    # litellm builds its pydantic models on the first call, and pydantic doesn't like them.
    pytest.mark.filterwarnings("ignore:Item 'summary' on TypedDict class:UserWarning"),
]

KEY = "sk-test-1a2b3c4d5e6f"
TWO = """\
models:
  - {name: small, model: openai/gpt-4o-mini, tier: 1, api_key: env:OPENAI_API_KEY, rpm: 500,
     tpm: 200000, fallbacks: own}
  - {name: own, model: acme/thing, tier: 1, price: {input: "1", output: "2"}, region: eu, context: 32000}
  - {name: odd, model: acme/odd, tier: 2, price: unknown}
"""


@pytest.fixture(scope="module")
def server():
    LiteLLM.preload().join()
    with FaultServer() as running:
        yield running


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """A file of models in the folder that one stands in."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "models.yaml"
    path.write_text(TWO, "utf-8")
    return path


def asked(capsys, *arguments: str) -> tuple[int, str]:
    """Exit code and output."""
    code = cli.main(["models", *arguments])
    return code, capsys.readouterr().out


def test_list_shows_what_the_file_says(file, capsys):
    """A table, or JSON, with the price of each and where it comes from; models.yaml where no file is named."""
    code, text = asked(capsys, "list")
    assert code == 0
    for word in ("small", "openai/gpt-4o-mini", "500 rpm", "200,000 tpm", "env:OPENAI_API_KEY", "own", "eu", "yours"):
        assert word in text
    code, text = asked(capsys, "list", str(file), "--tier", "2", "--json")
    (odd,) = json.loads(text)["models"]
    assert (odd["name"], odd["price"], odd["price_from"]) == ("odd", None, "unknown")


@pytest.mark.parametrize("dollars", ['"cheap"', '"-1"', "0.15", "[]", "true"])
def test_a_price_that_is_none_asks_for_dollars(file, capsys, dollars):
    """Whatever is wrong with it, the line says what a price looks like."""
    file.write_text(f"models:\n  - {{name: a, model: x/y, price: {{input: {dollars}, output: '1'}}}}\n", "utf-8")
    code, text = asked(capsys, "list")
    assert code == 100
    assert "quote it" in text or 'dollars per million tokens, 0 or more in quotes, like "0.15"' in " ".join(
        text.split()
    )


def test_list_shows_all_problems(file, capsys):
    """Each with its line; the exit code says that there are some."""
    file.write_text(TWO.replace("tier: 2", "tier: 9").replace("rpm: 500", "rpm: no"), "utf-8")
    code, text = asked(capsys, "list")
    assert code == 100
    assert text.count("problem") == 2
    assert "models[2].tier" in text
    code, text = asked(capsys, "list", "--json")
    assert (code, len(json.loads(text)["problems"])) == (100, 2)


def test_price_says_what_tokens_cost_and_of_when_the_map_is(file, capsys):
    """Cheapest first, unknown last and never zero, exact to the nano-dollar."""
    code, text = asked(capsys, "price", "--input", "1500", "--output", "300", "--json")
    found = json.loads(text)
    assert (code, found["price_map"]) == (0, frozen_prices().date)
    assert [(row["name"], row["cost"]) for row in found["models"]] == [
        ("small", "0.000405"),
        ("own", "0.0021"),
        ("odd", None),
    ]
    code, text = asked(capsys, "price", "-i", "1500", "-o", "300")
    assert f"price map of {frozen_prices().date}" in text
    assert "1,500 in + 300 out" in text
    assert "unknown" in text


def test_price_of_any_model(capsys):
    """By its provider's name, without a file; one that the map doesn't have is told, and found by the exit code."""
    code, text = asked(capsys, "price", "--model", "openai/gpt-4o-mini", "--model", "no/such", "--json")
    assert [row["cost"] for row in json.loads(text)["models"]] == ["0.00027", None]
    assert code == 100
    assert cli.main(["models", "price", "--model", "no/such"]) == 100
    assert "the price map has no model 'no/such'" in capsys.readouterr().err
    assert cli.main(["models", "price", "--model", "openai/gpt-4o-mini"]) == 0


def test_bad_input_is_one_line(file, capsys):
    """A file that isn't there, an alias that isn't, a negative count, an unsound file: exit code 2."""
    assert cli.main(["models", "list", "no.yaml"]) == 2
    assert cli.main(["models", "check", "--only", "smal"]) == 2
    assert cli.main(["models", "price", "--input", "-1"]) == 2
    assert cli.main(["models", "check", "--timeout", "0"]) == 2
    file.write_text(TWO.replace("tier: 2", "tier: 9"), "utf-8")
    assert cli.main(["models", "price"]) == 2
    file.unlink()
    assert cli.main(["models", "list"]) == 2
    told = capsys.readouterr().err
    assert told.count("error: ") == told.count("\n") == 6
    assert "did you mean 'small'" in told


def test_schema_is_the_schema(capsys):
    """For editors."""
    from escalade.agents.models_file import models_schema

    code, text = asked(capsys, "schema")
    assert (code, json.loads(text)) == (0, models_schema())


FAULTS = {
    "ok": ("ok", "answers"),
    "e401": ("key refused", "check TEST_KEY"),
    "e404": ("unknown model", "doesn't know the model 'openai/e404'"),
    "e429:7": ("rate limited", "try again in 7 s"),
    "e429quota": ("quota", "quota is used up"),
    "e500": ("server error", "the provider failed (status 500)"),
    "slow:5": ("timeout", "no answer within 2 s"),
    "drop": ("broken", "broke off"),
    "badjson": ("failed", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["lm15", "litellm"])
def test_check_says_in_plain_words_what_is_wrong(tmp_path, server, monkeypatch, capsys, transport):
    """One call to each over HTTP, none retried, within one budget; the sentence names the variable, never the key."""
    server.reset()
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    rows = [f'  - {{name: {f"m{i}"}, model: "openai/{fault}"}}\n' for i, fault in enumerate(FAULTS)]
    rows += ['  - {name: nokey, model: openai/ok, api_key: "env:NO_SUCH_KEY"}\n']
    rows += ['  - {name: away, model: openai/ok, api_base: "http://127.0.0.1:9/v1"}\n']
    rows += ["  - {name: falls, model: openai/e503, fallbacks: m0}\n"]
    rows += ["  - {name: unpriced, model: openai/ok, price: unknown}\n"]
    rows += ["  - {name: dear, model: openai/ok, price: {input: 10000, output: 10000}}\n"]
    defaults = (
        f'price: {{input: 1, output: 2}}, transport: {transport}, api_key: "env:TEST_KEY", api_base: "{server.base}"'
    )
    path = tmp_path / "models.yaml"
    path.write_text(f"defaults: {{{defaults}}}\nmodels:\n{''.join(rows)}", "utf-8")
    code, text = asked(capsys, "check", str(path), "--timeout", "2", "--budget", "0.05", "--json")
    found = {row["name"]: row for row in json.loads(text)["models"]}
    assert code == 100
    for i, (fault, (state, said)) in enumerate(FAULTS.items()):
        row = found[f"m{i}"]
        assert (row["state"], row["ok"]) == (state, state == "ok"), row
        assert said in row["said"], row
        assert server.calls[fault] == (1 if fault != "ok" else server.calls["ok"]), fault
    assert found["nokey"]["state"] == "no key"
    assert "set NO_SUCH_KEY" in found["nokey"]["said"]
    assert (found["away"]["state"], found["unpriced"]["state"]) == ("unreachable", "unpriced")
    assert "http://127.0.0.1:9/v1" in found["away"]["said"]
    assert found["dear"]["state"] == "too dear"
    assert (found["falls"]["state"], server.calls["e503"], server.calls["ok"]) == ("server error", 1, 1)
    assert KEY not in text


def test_check_prints_its_budget_and_what_it_spent(tmp_path, server, monkeypatch, capsys):
    """A table, a line before it and a line after it; 0 when all answer."""
    monkeypatch.setenv("TEST_KEY", KEY)
    path = tmp_path / "models.yaml"
    one = f'{{name: a, model: openai/ok, transport: lm15, price: {{input: 1, output: 2}}, api_base: "{server.base}"'
    path.write_text(f'models:\n  - {one}, api_key: "env:TEST_KEY"}}\n  - {{name: b, model: openai/gpt-4o}}\n', "utf-8")
    code, text = asked(capsys, "check", str(path), "--only", "a")
    assert code == 0
    assert "one call to each of 1 models, 16 tokens of answer, a budget of $0.05" in text
    assert "1 of 1 answer; spent $0.0000" in text
    assert KEY not in text


@pytest.mark.parametrize("transport", ["lm15", "litellm"])
def test_check_names_the_providers_own_variable(tmp_path, monkeypatch, capsys, transport):
    """Where the file has no key, the provider's variable is what is missing."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "models.yaml"
    names = "anthropic/claude-3-5-haiku-latest", "gemini/gemini-1.5-flash"
    rows = [f"  - {{name: m{i}, model: {name}, price: {{input: 1, output: 1}}}}\n" for i, name in enumerate(names)]
    path.write_text(f"defaults: {{transport: {transport}}}\nmodels:\n{''.join(rows)}", "utf-8")
    code, text = asked(capsys, "check", str(path), "--json")
    said = [(row["state"], row["said"]) for row in json.loads(text)["models"]]
    assert code == 100
    assert [state for state, _ in said] == ["no key", "no key"]
    assert "ANTHROPIC_API_KEY" in said[0][1]
    assert "GEMINI_API_KEY" in said[1][1]


def test_a_provider_that_nobody_knows(tmp_path, capsys):
    """Litellm says so, and so do we."""
    path = tmp_path / "models.yaml"
    path.write_text("models:\n  - {name: a, model: nosuch/thing, price: {input: 1, output: 1}}\n", "utf-8")
    code, text = asked(capsys, "check", str(path), "--json")
    assert (code, json.loads(text)["models"][0]["state"]) == (100, "unknown model")


def test_route_says_the_tier_and_the_way(file, capsys):
    """The path, the tier, and the model that it would be; another segment, another tier."""
    assert cli.main(["route", "my order is lost", "--models", str(file)]) == 0
    text = capsys.readouterr().out
    assert "intent support: my order, order, lost" in text
    assert "tier 1, small" in text
    assert cli.main(["route", "my order is lost", "--segment", "vip", "--json", "--models", str(file)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["tier"], found["segment"], found["intent"], found["model"]) == (2, "vip", "support", "odd")
    assert found["path"][-1] == "rule 2: complexity low, segment vip/enterprise -> tier 2"


def test_route_by_a_table_of_ones_own(file, tmp_path, capsys):
    """A file, also one of models; an unknown segment is bad input."""
    file.write_text(TWO + "routing: {rules: [{tier: 3}], segments: {}}\n", "utf-8")
    assert cli.main(["route", "hello", "--routing", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tier"] == 3
    assert cli.main(["route", "hello", "--routing", str(file), "--segment", "vip"]) == 2
    assert "unknown segment 'vip'" in capsys.readouterr().err
