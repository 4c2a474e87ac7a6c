"""escalade.yaml: where and how runs are executed; the code stays as it is."""

from __future__ import annotations

import json

import jsonschema_rs
import pytest
import yaml

from escalade import DbosEngine, PostgresLedger, PostgresLimiter, PostgresRequests, SqliteLedger, SqliteLimiter
from escalade.errors import BadInput, UnknownName
from escalade.pipelines.durable.config import SCHEMA_FILE, config_schema, load_config
from escalade.pipelines.durable.inline import Inline
from escalade.pipelines.durable.postgres_store import PostgresRuns
from escalade.pipelines.durable.worker import opened
from escalade.registry.audit.verify import verify

FULL = """
version: 1
engine: dbos
url: sqlite:///var/runs.sqlite
application: "2026-11"
workers: 0
concurrency: 4
pipelines:
  report: tests.pipelines.durable.app:report
  nap: tests.pipelines.durable.app:nap
queues:
  nightly: {concurrency: 2, rate: 20/min, pipelines: [report]}
budgets: budgets.yaml
policy: policy.yaml
audit: var/audit.sqlite
approvals: var/approvals.sqlite
cache: disk:var/answers
"""


@pytest.fixture
def written(tmp_path):
    """Writes the file, and what it names."""
    (tmp_path / "var").mkdir()
    (tmp_path / "budgets.yaml").write_text('budgets:\n- {account: everything, limit: "7.00"}\n')
    (tmp_path / "policy.yaml").write_text('roles: {clerk: ["model.*:call"]}\n')

    def write(text, name="escalade.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_a_file_says_all_that_runs_need(written, tmp_path):
    """Store, engine, queues, budgets, policy, record, cache: by paths of the file's folder."""
    config = load_config(written(FULL))
    with config.runs() as runs:
        assert sorted(runs.host.pipelines) == ["nap", "report"]
        engine = runs.engine
        assert isinstance(engine, DbosEngine)
        assert (engine.workers, engine.queues["default"].concurrency, engine.queues["nightly"].concurrency) == (0, 4, 2)
        assert str(engine.queues["nightly"].limits[0]) == "20/min"
        assert isinstance(runs.host.ledger, SqliteLedger)
        assert str(runs.host.ledger.account("everything").limit) == "7000000000"
        runs.host.access.check_roles(frozenset({"clerk"}))
        with pytest.raises(UnknownName):
            runs.host.access.check_roles(frozenset({"stranger"}))
        assert runs.start("nap", seconds=0.0).status() == "queued"
    assert isinstance(config.limiter(), SqliteLimiter)
    assert config.cache() is not None
    names = {path.name for path in (tmp_path / "var").iterdir()}
    assert {"runs.sqlite", "runs.sqlite.queue", "runs.sqlite.ledger", "runs.sqlite.limits", "audit.sqlite"} <= names


def test_json_says_the_same(written):
    """And so does TOML."""
    one = load_config(written(FULL)).spec
    other = load_config(written(json.dumps(yaml.safe_load(FULL)), "escalade.json")).spec
    assert one == other


def test_one_process_is_the_default(written, tmp_path):
    """Nothing but an address is needed; the engine is asyncio alone."""
    config = load_config(written("url: sqlite:///runs.sqlite"))
    assert isinstance(config.engine(), Inline)
    assert config.cache() is None
    assert config.url == f"sqlite:///{tmp_path}/runs.sqlite"


def test_many_hosts_are_one_line_away(written, postgres, monkeypatch):
    """`url` alone changes: runs, budgets and limits are in PostgreSQL then; the password stands elsewhere."""
    url = postgres.database()
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    spoken = url.replace(":secret@", "@")
    text = FULL.replace("sqlite:///var/runs.sqlite", f"{spoken}\npassword: env:DATABASE_PASSWORD")
    text = text.replace("var/audit.sqlite", "postgresql").replace("var/approvals.sqlite", spoken)
    config = load_config(written(text.replace("disk:var/answers", "postgresql")))
    assert config.url == url
    with config.runs() as runs:
        assert isinstance(runs.host.store, PostgresRuns)
        assert isinstance(runs.host.ledger, PostgresLedger)
        assert isinstance(runs.host.approvals.store, PostgresRequests)
        assert runs.start("nap", seconds=0.0).status() == "queued"
        runs.host.recorder.close()
    assert verify(url).rows >= 3
    assert isinstance(config.limiter(), PostgresLimiter)
    assert config.cache() is not None
    assert "secret" not in repr(config)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", "expected a mapping with the key 'url'"),
        ("engine: dbos", "url: is missing: where runs are kept"),
        ("url: redis://host", "1: url: expected sqlite:///PATH or postgresql://USER@HOST/DATABASE"),
        ("url: postgresql://me:hunter2222@db/app", "1: url: an address without the password; write `password: env:"),
        ("url: postgresql://me@db/app\npassword: hunter2222", "2: password: expected a reference to the password"),
        ("url: sqlite:///a\nengine: celery", "2: engine: .*'inline' or 'dbos'"),
        ("url: sqlite:///a\nworker: 3", r"2: worker: unknown key \(known: version, engine, url"),
        ("url: sqlite:///a\nworkers: 3", "2: workers: "),
        (
            "url: sqlite:///a\naudit: postgresql",
            "audit: postgresql is the database of `url`, which is a SQLite file",
        ),
        ("url: sqlite:///a\naudit: redis://host", "2: audit: this can't be kept in Redis: expected a path"),
        ("url: sqlite:///a\napprovals: mysql://host", "2: approvals: no kind of store has an address like mysql://"),
        ("url: sqlite:///a\naudit: postgresql://me:hunter2222@db/app", "2: audit: an address without the password"),
        ("url: sqlite:///a\nversion: 2", "2: version: "),
        ("url: sqlite:///a\nconcurrency: 0", "2: concurrency: .*greater than or equal to 1"),
        ("url: sqlite:///a\npipelines:\n  a: app.report", "3: pipelines.a: expected module:attribute"),
        ("url: sqlite:///a\nqueues:\n  slow: {rate: often}", "3: queues.slow.rate: not a rate limit"),
        ("url: sqlite:///a\nqueues:\n  slow: {speed: 1}", r"3: queues.slow.speed: unknown key \(known: concurrency"),
        ("url: sqlite:///a\nqueues:\n  slow: {pipelines: [a]}", "queue 'slow' names pipeline 'a', which"),
        ("url: sqlite:///a\ncache: memcached", "2: cache: expected disk:FOLDER, redis://HOST or postgresql"),
        ("url: sqlite:///a\ncache: postgresql", "postgresql is the database of `url`, which is a SQLite file"),
        ("url: sqlite:///a\nurl: sqlite:///b", "the key 'url' occurs twice"),
    ],
)
def test_what_is_wrong_is_told_by_file_line_and_key(written, text, what):
    """What was expected is said, and never what was written: it may be a password."""
    file = written(text)
    with pytest.raises(BadInput, match=what) as told:
        load_config(file)
    assert str(told.value).startswith(str(file))
    assert "hunter2222" not in str(told.value)


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("tests.nonsuch:report", r"escalade.yaml:3: pipelines.a: module 'tests.nonsuch' can't be imported"),
        ("tests.pipelines.durable.app:nonsuch", "module 'tests.pipelines.durable.app' has no 'nonsuch'"),
        ("tests.pipelines.durable.app:step", "pipeline 'a': expected a Chain, a FanOut or another pipeline"),
    ],
)
def test_a_pipeline_that_isnt_there_is_told(written, target, what):
    """When runs are made: with its line."""
    config = load_config(written(f"url: sqlite:///runs.sqlite\npipelines:\n  a: {target}"))
    with pytest.raises(BadInput, match=what):
        config.runs()


def test_a_password_that_isnt_there_is_told(written):
    """By the name of the reference."""
    config = load_config(written("url: postgresql://me@db/app\npassword: env:NO_SUCH_PASSWORD"))
    with pytest.raises(BadInput, match="NO_SUCH_PASSWORD"):
        _ = config.url


def test_a_worker_takes_what_it_is_told(written, tmp_path, monkeypatch):
    """A file, or a Runs object by its name; with other numbers, where it has an engine of several processes."""
    runs = opened(str(written(FULL)), concurrency=3, queues=("nightly",), name="blue")
    assert (runs.engine.workers, runs.engine.serves, runs.engine.queues["nightly"].concurrency) == (1, ("nightly",), 3)
    runs.close()
    monkeypatch.setenv("ESCALADE_RUNS", f"sqlite:///{tmp_path}/runs.sqlite")
    runs = opened("tests.pipelines.durable.app:runs")
    assert runs.engine.workers == 1
    runs.close()
    with pytest.raises(BadInput, match=r"expected a Runs\(\.\.\.\) or a Config, got Chain"):
        opened("tests.pipelines.durable.app:nap")
    with pytest.raises(BadInput, match="expected module:attribute"):
        opened("nonsense")
    inline = written("url: sqlite:///runs.sqlite", "inline.yaml")
    with pytest.raises(BadInput, match="write `engine: dbos`"):
        opened(str(inline), name="blue")
    runs = opened(str(inline), concurrency=3)
    assert runs.engine.concurrency == 3
    runs.close()


def test_the_published_schema_is_up_to_date():
    """`data/escalade.schema.json` is what this version says."""
    assert json.loads(SCHEMA_FILE.read_text("utf-8")) == config_schema()


def test_the_schema_takes_what_we_take():
    """It accepts the file above, and nothing misspelt."""
    check = jsonschema_rs.validator_for(config_schema())
    good = yaml.safe_load(FULL)
    assert check.is_valid(good)
    for change in ({"urls": "x"}, {"url": "redis://x"}, {"workers": 2}, {"cache": "x"}, {"password": "hunter2222"}):
        assert not check.is_valid({**good, **change}), change
