"""`escalade runs` and `escalade worker` from a terminal."""

from __future__ import annotations

import json
import time

import pytest

from escalade import Ask, Chain, Runs
from escalade.cli import main
from escalade.pipelines.durable.inline import Inline


async def draft(topic: str) -> dict[str, str]:
    return {"draft": f"about {topic}"}


async def publish(draft: str, decision: bool) -> dict[str, str]:
    if not decision:
        raise ValueError("nobody wants it")
    return {"published": draft}


def asking():
    return Chain(draft=draft, ok=Ask("Publish?", show=["draft"]), publish=publish)


def simple():
    async def ok(draft: str) -> dict[str, bool]:
        return {"decision": "bad" not in draft}

    return Chain(draft=draft, ok=ok, publish=publish)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Four runs: done, failed, cancelled, and one that waits for a person."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "runs.sqlite"
    with Runs(path, pipelines={"simple": simple(), "asking": asking()}, engine=Inline(concurrency=4)) as runs:
        runs.start("simple", run_id="good", topic="tea", tenant="acme", events=True).result(timeout=20)
        for run_id, pipeline in (("bad", "simple"), ("asks", "asking"), ("gone", "asking")):
            run = runs.start(pipeline, run_id=run_id, topic=run_id)
            end = time.monotonic() + 20
            while run.status() not in {"failed", "waiting"}:
                assert time.monotonic() < end
                time.sleep(0.01)
        runs.cancel("gone")
    (tmp_path / "escalade.yaml").write_text("url: sqlite:///runs.sqlite\n")
    return path


def told(capsys, *argv):
    """What a command printed as JSON."""
    capsys.readouterr()
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_list_finds_runs(store, capsys):
    """By status, pipeline, tenant, time and number, the latest first."""
    found = told(capsys, "runs", "list")["runs"]
    assert [(run["run"], run["status"]) for run in found] == [
        ("gone", "cancelled"), ("asks", "waiting"), ("bad", "failed"), ("good", "done"),
    ]  # fmt: skip
    for options, names in (
        (["--status", "failed", "--status", "done"], ["bad", "good"]),
        (["--pipeline", "asking"], ["gone", "asks"]),
        (["--tenant", "acme"], ["good"]),
        (["-n", "1"], ["gone"]),
        (["--since", "2100-01-01"], []),
    ):
        assert [run["run"] for run in told(capsys, "runs", "list", *options)["runs"]] == names
    assert main(["runs", "list", "--at", str(store)]) == 0
    shown = capsys.readouterr().out
    assert "nobody wants it" in shown
    assert main(["runs", "list", "--since", "2100-01-01"]) == 0
    assert capsys.readouterr().out == "no runs\n"


def test_show_tells_all_of_a_run(store, capsys):
    """Inputs, steps, result, error, events, and what it waits for."""
    good = told(capsys, "runs", "show", "good")
    assert [step["path"] for step in good["steps"]] == ["draft", "ok", "publish"]
    assert good["inputs"] == {"topic": "tea"}
    assert good["steps"][0]["result"] == {"draft": "about tea"}
    assert (good["status"], good["attempts"], good["spent"]) == ("done", 1, "0")
    assert "RunFinished" in {event["event"] for event in good["events"]} or good["events"]
    bad = told(capsys, "runs", "show", "bad")
    assert bad["error"]["kind"] == "ValueError"
    assert "nobody wants it" in bad["error"]["message"]
    (ticket,) = told(capsys, "runs", "show", "asks")["waits_for"]
    assert "Publish?" in json.dumps(ticket["asked"])
    assert main(["runs", "show", "asks"]) == 0
    shown = capsys.readouterr().out
    assert "waits for an answer to" in shown
    assert ticket["ticket"] in shown
    assert "Publish?" in shown
    assert "to be answered by approve or reject" in " ".join(shown.split())
    assert main(["runs", "show", "good"]) == 0
    shown = capsys.readouterr().out
    assert "about tea" in shown
    assert "$" not in shown.partition("result:")[2]  # fields, not the form in which they are kept


def test_answer_lets_a_run_go_on(store, capsys):
    """Once, by somebody, with what the question wants; whoever executes takes it up."""
    (ticket,) = told(capsys, "runs", "show", "asks")["waits_for"]
    name = ticket["ticket"]
    assert main(["runs", "answer", name, "perhaps", "--by", "ada"]) == 2
    assert "expected True" in capsys.readouterr().err
    assert main(["runs", "answer", name, "approve", "--by", "ada"]) == 0
    assert "answered by ada" in capsys.readouterr().out
    assert main(["runs", "answer", name, "approve", "--by", "eve"]) == 2
    assert "answered before" in capsys.readouterr().err
    assert told(capsys, "runs", "show", "asks")["status"] == "queued"
    with Runs(store, pipelines={"simple": simple(), "asking": asking()}) as runs:
        runs.recover()
        assert runs.get("asks").result(timeout=20).published == "about asks"


def test_what_is_edited_is_json_where_it_is_no_text(tmp_path, monkeypatch, capsys):
    """As the field is; what isn't is told at once."""
    monkeypatch.chdir(tmp_path)
    pipelines = {"edits": Chain(ok=Ask("Right?", edit="count"), last=lambda count: {"twice": 2 * count})}
    (tmp_path / "escalade.yaml").write_text("url: sqlite:///runs.sqlite\n")
    with Runs(tmp_path / "runs.sqlite", pipelines=pipelines) as runs:
        run = runs.start("edits", run_id="one", count=1)
        while run.status() != "waiting":
            time.sleep(0.01)
    (ticket,) = told(capsys, "runs", "show", "one")["waits_for"]
    answer = ["runs", "answer", ticket["ticket"], "approve", "--by", "ada", "--edited"]
    assert main([*answer, "two"]) == 2
    assert "expected JSON" in capsys.readouterr().err
    assert main([*answer, "[2]"]) == 2
    assert "'count' is a number, 1; got [2]" in " ".join(capsys.readouterr().err.split())
    assert main([*answer, "2"]) == 0
    with Runs(tmp_path / "runs.sqlite", pipelines=pipelines) as runs:
        runs.recover()
        assert runs.get("one").result(timeout=20).twice == 4


def test_resume_and_cancel_say_what_became_of_it(store, capsys):
    """One that is done can't go on; one that was cancelled can, and again."""
    assert main(["runs", "resume", "gone"]) == 0
    assert "gone: queued" in capsys.readouterr().out
    assert main(["runs", "cancel", "gone"]) == 0
    assert "gone: cancelled" in capsys.readouterr().out
    assert main(["runs", "resume", "good"]) in {1, 2}
    assert "done" in capsys.readouterr().err
    assert main(["runs", "resume", "gone", "--force", "--at", str(store)]) == 2
    assert "stands in a file" in capsys.readouterr().err
    assert main(["runs", "cancel", "nonsuch"]) == 2
    assert "unknown run 'nonsuch'" in capsys.readouterr().err


def test_prune_forgets_what_ended_long_ago(store, capsys):
    """What hasn't ended stays, whatever its age."""
    assert main(["runs", "prune", "--older-than", "1d"]) == 0
    assert capsys.readouterr().out == "0 runs forgotten\n"
    assert main(["runs", "prune", "--older-than", "0s", "--status", "failed"]) == 0
    assert capsys.readouterr().out == "1 runs forgotten\n"
    assert main(["runs", "prune", "--older-than", "0s"]) == 0
    assert [run["run"] for run in told(capsys, "runs", "list")["runs"]] == ["asks"]
    assert main(["runs", "prune", "--older-than", "soon"]) == 2
    assert "a time like 30d" in capsys.readouterr().err
    assert main(["runs", "prune", "--older-than", "1d", "--status", "waiting"]) == 2
    assert "only runs that have ended" in capsys.readouterr().err


def test_a_store_that_isnt_there_is_not_made(tmp_path, monkeypatch, capsys):
    """Neither by its path nor by a file that names it."""
    monkeypatch.chdir(tmp_path)
    for at in ("runs.sqlite", "sqlite:///runs.sqlite"):
        assert main(["runs", "list", "--at", at]) == 2
        assert "there are no runs at" in capsys.readouterr().err
    (tmp_path / "escalade.yaml").write_text("url: sqlite:///runs.sqlite\n")
    assert main(["runs", "list"]) == 2
    assert "there are no runs at" in capsys.readouterr().err
    assert not (tmp_path / "runs.sqlite").exists()
    assert main(["runs", "list", "--at", "postgresql://me@127.0.0.1:9/x"]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_the_schema_is_printed(capsys):
    """For editors."""
    assert main(["runs", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Runs of escalade"


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["--concurrency", "0"], "--concurrency: expected 1 or more"),
        (["--drain", "-1"], "expected seconds, 0 or more"),
        ([], "escalade.yaml: can't be read"),
        (["nonsense"], "expected module:attribute"),
        (["no.such.module:runs"], "module 'no.such.module' can't be imported"),
    ],
)
def test_a_worker_that_cant_begin_says_why(tmp_path, monkeypatch, capsys, argv, what):
    """In one line, with the exit code for what one can put right."""
    monkeypatch.chdir(tmp_path)
    assert main(["worker", *argv]) == 2
    assert what in capsys.readouterr().err
