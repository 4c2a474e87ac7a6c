"""Models out of YAML, JSON and TOML, and problems that say where they are and never what a key is."""

from __future__ import annotations

import json
from pathlib import Path

import dspy
import jsonschema_rs
import pytest

import escalade
from escalade import Gateway, Simulated, World
from escalade.agents.models_file import SCHEMA_FILE, load_file, models_schema, read_models
from escalade.agents.transports import LM15, LiteLLM, Recorded
from escalade.errors import BadInput
from escalade.registry.limits import RateLimit
from escalade.registry.prices import Price, frozen_prices

KEY = "sk-proj-9f8e7d6c5b4a"

YAML = """\
defaults: {timeout: 30, region: eu, transport: lm15}
regions: {"tenant:acme": eu, "role:gov": [us, eu]}
models:
  - name: small
    model: openai/gpt-4o-mini
    tier: 1
    api_key: env:OPENAI_API_KEY
    rpm: 500
    tpm: 200000
    limits: {user: 5/s}
    context: 128000
    fallbacks: other
  - name: other
    model: acme/thing-1
    tier: 1
    price: {input: "0.20", output: "0.80", cached: 0}
    roles: [analyst]
    region: us
    timeout: 5.5
    transport: litellm
    api_base: https://models.acme.example/v1
    options: {api_version: "2026-01", extra_headers: {Authorization: env:ACME_AUTH}}
"""


@pytest.fixture(scope="module", autouse=True)
def _litellm():
    """Gateways import it in a thread; no test after this one is to notice."""
    LiteLLM.preload().join()


def written(folder: Path, text: str, name: str = "models.yaml") -> Path:
    """A file."""
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def problems(folder: Path, text: str, name: str = "models.yaml") -> list[str]:
    """What is wrong in it, without the folder."""
    _, found = read_models(written(folder, text, name))
    return [str(one).replace(f"{folder}/", "") for one in found]


def test_embedders_have_prices_of_the_map(tmp_path):
    """What embeds texts costs by its input alone; where images are billed, too, no price is better than half of one."""
    text = 'models:\n- {name: v, model: openai/text-embedding-3-small, kind: embedding, api_key: "env:K"}'
    gateway = Gateway.from_file(written(tmp_path, text), name="vectors")
    assert gateway.model("v").price == Price.of("0.02", "0")
    assert frozen_prices().get("amazon.titan-embed-image-v1") is None


def test_a_file_becomes_a_gateway(tmp_path):
    """All that it says is there: prices, limits, tiers, regions, fallbacks, and defaults where it says nothing."""
    gateway = Gateway.from_file(written(tmp_path, YAML), name="from-file")
    small, other = gateway.model("small"), gateway.model("other")
    assert gateway.models == ("small", "other")
    assert (small.tier, small.tpm, small.context, small.timeout, small.region) == (1, 200_000, 128_000, 30, "eu")
    assert small.price == frozen_prices().get("openai/gpt-4o-mini")
    assert small.resource.limits == (RateLimit(5, 1.0, "user"),)
    assert (small.lane.rpm, small.lane.tpm, other.lane) == (500, 200_000, None)
    assert small.fallbacks == ("other",)
    assert (other.price, other.roles, other.region) == (Price.of("0.20", "0.80", "0"), ("analyst",), "us")
    assert other.resource.permission == "model.other:call"
    assert isinstance(small.transport, LM15)
    assert isinstance(other.transport, LiteLLM)
    assert gateway.regions == {"tenant:acme": ("eu",), "role:gov": ("us", "eu")}
    assert gateway.tier(1) == (small, other)
    assert gateway.tier(2) == ()


@pytest.mark.parametrize(("name", "dump"), [("models.json", json.dumps)])
def test_json_works_too(tmp_path, name, dump):
    """The same as JSON is the same."""
    import yaml

    same = load_file(written(tmp_path, dump(yaml.safe_load(YAML)), name))
    assert same == load_file(written(tmp_path, YAML))


def test_toml_works_too(tmp_path):
    """The same as TOML is the same."""
    text = '[[models]]\nname = "a"\nmodel = "openai/gpt-4o-mini"\ntier = 1\nprice = {input = "1", output = "2"}\n'
    (spec,) = load_file(written(tmp_path, text, "models.toml")).models
    assert (spec.name, spec.tier, spec.priced()) == ("a", 1, (Price.of("1", "2"), "yours"))


def test_lines_in_toml(tmp_path):
    """They are found by the headings of tables."""
    text = '[defaults]\ntimeout = 9\n\n[[models]]\nname = "a"\nmodel = "openai/gpt-4o"\n\n[[models]]\nname = "b"\n'
    (found,) = problems(tmp_path, f'{text}tier = 9\nmodel = "openai/gpt-4o"\n', "models.toml")
    assert found.startswith("models.toml:10: models[1].tier: ")
    (found,) = problems(tmp_path, f'x = 1\n{text}model = "openai/gpt-4o"\n', "models.toml")
    assert found.startswith("models.toml:1: x: unknown key")


def test_later_files_override_earlier_ones(tmp_path):
    """Field by field, models that are new come behind, and problems are said with the file that they stand in."""
    base = written(tmp_path, YAML)
    more = "models:\n  - {name: small, timeout: 3, region: us}\n  - {name: third, model: openai/gpt-4o}\n"
    gateway = Gateway.from_file(base, written(tmp_path, more, "prod.yaml"), name="over")
    assert gateway.models == ("small", "other", "third")
    assert (gateway.model("small").timeout, gateway.model("small").region) == (3, "us")
    assert gateway.model("small").tpm == 200_000
    _, found = read_models(base, written(tmp_path, "models:\n  - {name: small,\n     tier: 9}\n", "wrong.yaml"))
    assert [(Path(one.file).name, one.line, one.key) for one in found] == [("wrong.yaml", 3, "models[0].tier")]


def test_models_with_the_same_address_share_connections(tmp_path):
    """One transport per address, key and settings."""
    text = "models:\n" + "".join(
        f"  - {{name: m{i}, model: openai/gpt-4o-mini, transport: lm15, api_key: env:K{i // 2}}}\n" for i in range(4)
    )
    gateway = Gateway.from_file(written(tmp_path, text), name="shared")
    carried = [gateway.model(name).transport for name in gateway.models]
    assert carried[0] is carried[1]
    assert carried[2] is carried[3]
    assert carried[0] is not carried[2]


def test_a_transport_can_stand_in_for_all(tmp_path):
    """`transport=` carries every model, so that a file can be tried without a network."""
    world = World()
    gateway = Gateway.from_file(written(tmp_path, YAML), transport=Simulated(world), name="tried")
    assert gateway.model("small").transport is gateway.model("other").transport


def test_simulated_and_recorded_models_need_no_key(tmp_path):
    """They answer offline; the recording is found beside the file."""
    Recorded(tmp_path / "talk.jsonl", inner=Simulated(World()), mode="fill")
    text = """\
models:
  - {name: a, model: sim-a, tier: 1, transport: simulated, price: {input: "0.1", output: "0.4"}}
  - {name: b, model: sim-b, tier: 4, transport: simulated, price: {input: 1, output: 4}}
  - {name: c, model: sim-c, transport: recorded, recording: talk.jsonl, price: unknown}
"""
    gateway = Gateway.from_file(written(tmp_path, text), name="offline")
    assert gateway.model("a").transport is gateway.model("b").transport
    assert gateway.model("c").transport.name == "recorded"
    with escalade.scope(budget="0.05") as run, dspy.context(lm=gateway.lm("b")):
        assert dspy.Predict("question -> answer")(question="What is 2 + 2?").answer
    assert run.spent > escalade.Money(0)


WRONG = [
    ("models:\n  - name: a\n    model: openai/gpt-4o\n    tier: 5\n", "models.yaml:4: models[0].tier: "),
    ("models:\n  - name: a\n    model: openai/gpt-4o\n    tire: 1\n", "models.yaml:4: models[0].tire: unknown key"),
    ("models:\n  - name: a\n    tier: 1\n", "models.yaml:2: models[0].model: Field required"),
    ("models:\n  - model: openai/gpt-4o\n", "models.yaml:2: models[0].name: expected a mapping with a name"),
    ("models: []\n", "models.yaml:1: models: expected at least one model"),
    ("modles: []\n", "models.yaml:1: modles: unknown key"),
    ("- a\n", "models.yaml: expected a mapping with the key 'models'"),
    ("version: 2\nmodels: [{name: a, model: openai/gpt-4o}]\n", "models.yaml:1: version: version 2 is not known"),
    ("defaults: {name: a}\nmodels: [{name: a, model: openai/gpt-4o}]\n", "models.yaml:1: defaults.name: is each"),
    ("regions: {acme: eu}\nmodels: [{name: a, model: openai/gpt-4o}]\n", "models.yaml:1: regions: regions are for"),
    (
        "models:\n  - {name: a, model: openai/gpt-4o}\n  - name: a\n    model: openai/gpt-4o\n",
        "models.yaml:3: models[1].name: 'a' is there twice (also in line 2)",
    ),
    (
        "models: [{name: a, model: openai/gpt-4o}]\nrouting:\n  rules:\n    - {tier: 9}\n",
        "models.yaml:4: routing.rules[0].tier: Input should be less",
    ),
    ("models: [{name: a, model: openai/gpt-4o}]\nrouting: 3\n", "models.yaml:2: routing: expected a mapping"),
    (
        "models:\n  - name: a\n    model: openai/gpt-4o\n    fallbacks: [b]\n",
        "models.yaml:4: models[0].fallbacks: unknown model 'b'",
    ),
    (
        (
            "models:\n  - {name: a, model: openai/gpt-4o,\n     fallbacks: b}\n"
            "  - {name: b, model: openai/gpt-4o, fallbacks: a}\n"
        ),
        "models.yaml:3: models[0].fallbacks: go round in a circle: a -> b -> a",
    ),
    (
        (
            "models:\n  - {name: a, model: openai/gpt-4o, tier: 1,\n     fallbacks: b}\n"
            "  - {name: b, model: openai/gpt-4o, tier: 3}\n"
        ),
        "models.yaml:3: models[0].fallbacks: fallback 'b' is of tier 3",
    ),
    (
        "models:\n  - name: a\n    model: acme/nothing\n",
        "models.yaml:2: models[0].price: 'acme/nothing' is not in the price map of 2",
    ),
    (
        "models:\n  - name: a\n    model: x\n    price: {input: 0.5, output: 1}\n",
        'models.yaml:4: models[0].price.input: quote it: "0.5"',
    ),
    ("models:\n  - name: a\n    model: x\n    price: cheap\n", "models.yaml:4: models[0].price: expected {input"),
    (
        "models:\n  - name: a\n    model: openai/gpt-4o\n    limits: often\n",
        "models.yaml:4: models[0].limits: not a rate limit",
    ),
    (
        "models:\n  - name: a\n    model: openai/gpt-4o\n    context: 100\n",
        "models.yaml:4: models[0].context: 100 tokens have no room",
    ),
    (
        "models:\n  - name: a\n    model: openai/gpt-4o\n    transport: recorded\n",
        "models.yaml:2: models[0].recording: goes together",
    ),
    (
        "defaults:\n  timeout: -1\nmodels: [{name: a, model: openai/gpt-4o}]\n",
        "models.yaml:2: defaults.timeout: Input should be greater than 0",
    ),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=range(len(WRONG)))
def test_problems_name_file_line_and_field(tmp_path, text, said):
    """One problem, where it is."""
    (found,) = problems(tmp_path, text)
    assert found.startswith(said), found
    with pytest.raises(BadInput, match="models"):
        Gateway.from_file(tmp_path / "models.yaml")


LEAKS = [
    f"api_key: {KEY}",
    f"api_key: env:{KEY}",
    f"api_key: given:{KEY}",
    f"api_key: [{KEY}]",
    f"apikey: {KEY}",
    f"options: {{api_key: {KEY}}}",
    f"options: {{extra_headers: {{Authorization: Bearer {KEY}}}}}",
    f"options: {{extra_headers: {{x-auth: {KEY}}}}}",
    f"region: eu\n    model: {KEY}",
    f"options: {{extra_body: {{keys: [{{api_key: {KEY}}}]}}}}",
    f"options: {{hosts: [one, {KEY}]}}",
    "options: {extra_headers: {X-Custom-Auth: Bearer " + KEY.replace("-", "") + "}}",
    f"region: {KEY}",
    f"api_base: https://models.example/{KEY}/v1",
    f"api_base: https://me:{KEY}@models.example/v1",
    f"api_base: https://models.example/v1?api_key={KEY}",
    f"timeout: {KEY}",
    f"price: {{input: {KEY}, output: 1}}",
]


@pytest.mark.parametrize("line", LEAKS)
def test_a_key_is_refused_and_never_repeated(tmp_path, line):
    """Whatever field it was written in, no message has it."""
    model = "" if "model:" in line else "    model: openai/gpt-4o\n"
    found = problems(tmp_path, f"models:\n  - name: a\n{model}    {line}\n")
    assert found
    assert KEY not in "".join(found)
    with pytest.raises(BadInput) as refused:
        Gateway.from_file(tmp_path / "models.yaml")
    assert KEY not in str(refused.value)


def test_keys_are_looked_up_when_they_are_used(tmp_path, monkeypatch):
    """A file with a key that isn't there loads; the call says which variable is missing, and falls back."""
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    text = """\
models:
  - {name: a, model: openai/gpt-4o-mini, transport: lm15, api_key: env:NO_SUCH_KEY, api_base: "http://127.0.0.1:9/v1"}
"""
    gateway = Gateway.from_file(written(tmp_path, text), name="keyless")
    with escalade.scope(budget="0.05"), pytest.raises(Exception, match="NO_SUCH_KEY"):
        gateway.lm("a")("hello")


def test_more_problems_are_counted(tmp_path):
    """The first one is raised, and how many more there are."""
    with pytest.raises(BadInput, match=r"and 1 more"):
        load_file(written(tmp_path, "models:\n  - {name: a, model: openai/gpt-4o, tier: 9, rpm: 0}\n"))


def test_no_file_is_bad_input(tmp_path):
    """Neither none nor one that isn't there."""
    with pytest.raises(BadInput, match="one or more files"):
        read_models()
    with pytest.raises(BadInput, match="can't be read"):
        read_models(tmp_path / "no.yaml")


def test_the_published_schema_is_up_to_date():
    """`data/models.schema.json` is what this version says."""
    assert json.loads(SCHEMA_FILE.read_text("utf-8")) == models_schema()


def test_the_schema_takes_what_we_take(tmp_path):
    """It accepts the file above, and no misspelt field, tier or key."""
    import yaml

    check = jsonschema_rs.validator_for(models_schema())
    good = yaml.safe_load(YAML)
    assert check.is_valid(good)
    for change in ({"tire": 1}, {"tier": 5}, {"api_key": KEY}, {"price": "cheap"}, {"timeout": -1}):
        assert not check.is_valid({"models": [{**good["models"][0], **change}]}), change


LANES = """
lanes:
  acme: {rpm: 60, tpm: 90000, limits: 5/s, at_once: 8, max_waiting: 100, patience: 30}
defaults: {transport: simulated, price: unknown}
models:
  - {name: a, model: sim/a, lane: acme}
  - {name: b, model: sim/b, lane: acme}
  - {name: c, model: sim/c, rpm: 5}
"""


def test_models_share_the_lanes_of_their_file(tmp_path):
    """Those of one account share its lane; one with limits of its own has its own."""
    gateway = Gateway.from_file(written(tmp_path, LANES), name="lanes")
    a, b, c = (gateway.model(name).lane for name in "abc")
    assert a is b
    assert (a.name, a.rpm, a.tpm, a.max_waiting, a.patience) == ("acme", 60, 90_000, 100, 30.0)
    assert (c.name, c.rpm, c.patience) == ("c", 5, float("inf"))


def test_wrong_lanes_are_named(tmp_path):
    """A lane that nobody described, limits said twice, a misspelt field, no number: with file and line."""
    wrong = LANES.replace("lane: acme}\n  - {name: b", "lane: acmé, rpm: 3}\n  - {name: b").replace("5/s", "5 or so")
    wrong = wrong.replace("sim/b, lane: acme", "sim/b, lane: acme, tpm: 3")
    problems = [str(problem) for problem in read_models(written(tmp_path, wrong))[1]]
    assert "models.yaml:3: lanes.acme.limits: not a rate limit: '5 or so'" in problems[0]
    assert "models.yaml:6: models[0].lane: unknown lane 'acmé'" in problems[1]
    assert len(problems) == 3
    assert "expected a mapping like {openai: {rpm: 500}}" in str(
        read_models(written(tmp_path, LANES.replace("lanes:\n  acme", "lanes: [1]\nversion: 1\n# ")))[1][0]
    )
