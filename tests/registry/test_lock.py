"""Locks: a range means one version for a whole run, and for later runs as well."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import dspy
import pytest

import escalade
from escalade import Journal, Registry, tool
from escalade.errors import BadInput, LockDrift, UnknownName
from escalade.registry.lock import Lock, Locked


def say(text: str = "") -> str:
    """Say it."""
    return text


def shop(*labels: str, **said: Any) -> Registry:
    made = [tool(name=name, version=version, **said)(say) for name, version in (one.split("@") for one in labels)]
    return Registry(made, name="shop")


def versions(registry: Registry, *wanted: str) -> list[str]:
    return [registry.resolve(one).spec.version for one in wanted]


class Asks(dspy.Module):
    """Resolves in whatever thread it runs."""

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self.ask = lambda: registry.resolve("a", "^1").spec.version

    def forward(self, **_: Any) -> str:
        return self.ask()


def test_a_range_means_one_version_for_a_whole_run() -> None:
    """Whatever is registered or yanked meanwhile: in this thread, in nested scopes, in DSPy's threads and in tasks."""
    registry = shop("a@1.0.0")
    with escalade.scope():
        assert versions(registry, "a@^1", "a") == ["1.0.0", "1.0.0"]
        registry.register(tool(name="a", version="1.1.0")(say))
        registry.yank("a", "1.0.0")
        with escalade.scope(budget="1.00"):
            assert versions(registry, "a@^1", "a", "a@~1") == ["1.0.0", "1.0.0", "1.1.0"], "~1 was not asked before"
            assert [one.spec.version for one in registry.tools_for()] == ["1.0.0"]
        example = dspy.Example(x=1).with_inputs("x")
        asked = Asks(registry).batch([example] * 4, num_threads=2, disable_progress_bar=True)
        assert list(asked) == ["1.0.0"] * 4

        async def ask() -> str:
            return registry.resolve("a", "^1").spec.version

        assert asyncio.run(ask()) == "1.0.0"
        assert registry.resolved() == {"a@^1": "1.0.0", "a": "1.0.0", "a@~1": "1.1.0"}
    assert registry.resolved() == {}
    with escalade.scope():
        assert versions(registry, "a@^1") == ["1.1.0"], "another run"


def test_threads_that_ask_first_agree() -> None:
    """Of many threads that ask at once while versions are published, all get the same."""
    registry = shop("a@1.0.0")
    with escalade.scope():

        def ask(i: int) -> str:
            registry.register(tool(name="a", version=f"1.{i + 1}.0")(say))
            return registry.resolve("a", "^1").spec.version

        pairs = [(lambda i=i: ask(i), {}) for i in range(16)]
        found = dspy.Parallel(num_threads=8, disable_progress_bar=True)(pairs)
    assert len(set(found)) == 1


def test_the_configured_scope_is_no_run() -> None:
    """A server's default scope lives as long as the process: it follows what is published; runs within it do not."""
    registry = shop("a@1.0.0")
    escalade.configure()
    assert versions(registry, "a") == ["1.0.0"]
    with escalade.scope():
        assert versions(registry, "a") == ["1.0.0"]
        registry.register(tool(name="a", version="1.1.0")(say))
        assert versions(registry, "a") == ["1.0.0"]
    assert versions(registry, "a") == ["1.1.0"]


def test_written_and_used_again(tmp_path: Path) -> None:
    """A run writes what its ranges meant; another run means the same by them, though there is something newer."""
    path = tmp_path / "escalade.lock"
    registry = shop("a@1.0.0", "a@1.1.0", "a@2.0.0", "b@1.0.0", "c@1.0.0")
    with escalade.scope():
        versions(registry, "a@^1", "a@2", "b")
        lock = registry.write_lock(path)
    assert [(one.label, one.ranges) for one in lock.tools] == [
        ("a@1.1.0", ("^1",)), ("a@2.0.0", ("2",)), ("b@1.0.0", ("",)),
    ]  # fmt: skip
    for version in ("1.2.0", "2.1.0"):
        registry.register(tool(name="a", version=version)(say))
    registry.register(tool(name="b", version="1.1.0")(say))
    for given in (path, str(path), Lock.load(path)):
        with escalade.scope(lock=given):
            assert versions(registry, "a@^1", "a@2", "b", "a@>=1", "b@1", "a") == [
                "1.1.0", "2.0.0", "1.0.0", "2.0.0", "1.0.0", "2.0.0",
            ]  # fmt: skip
            with escalade.scope():
                assert versions(registry, "b") == ["1.0.0"]
            assert [one.spec.label for one in registry.tools_for()] == ["a@2.0.0", "b@1.0.0"], "c was not locked"


def test_what_to_lock(tmp_path: Path) -> None:
    """By name and range; without any, what the run resolved; outside of runs, the newest stable of everything."""
    registry = shop("a@1.0.0", "a@2.0.0-rc.1", "b@1.0.0", "c@1.0.0-rc.1")
    assert [one.label for one in registry.write_lock(tmp_path / "l", ["a@^2.0.0-rc.0"]).tools] == ["a@2.0.0-rc.1"]
    assert [one.label for one in registry.write_lock(tmp_path / "l").tools] == ["a@1.0.0", "b@1.0.0"]
    assert Lock.load(tmp_path / "l").tools == registry.load_lock(tmp_path / "l").tools
    with pytest.raises(UnknownName):
        registry.write_lock(tmp_path / "l", ["ghost"])


def test_the_file_is_stable(tmp_path: Path) -> None:
    """Sorted JSON without times or paths: two runs that mean the same write the same bytes."""
    one, two = tmp_path / "one", tmp_path / "two"
    shop("b@1.0.0", "a@1.0.0").write_lock(one)
    shop("a@1.0.0", "b@1.0.0").write_lock(two)
    assert one.read_bytes() == two.read_bytes()
    written = json.loads(one.read_text())
    assert [entry["name"] for entry in written["tools"]] == ["a", "b"]
    assert sorted(written["tools"][0]) == ["facts", "name", "ranges", "schema", "spec", "version"]
    assert len(written["tools"][0]["schema"]) == 64
    assert list(tmp_path.iterdir()) in ([one, two], [two, one])


def more(text: str = "", loud: bool = False) -> str:
    """Say it, perhaps loudly."""
    return text


@pytest.mark.parametrize(
    ("function", "said", "differences"),
    [
        (say, {"cost": "0.002"}, ["cost: the default -> 0.002"]),
        (say, {"side_effects": "read"}, ["side_effects: the default -> read"]),
        (say, {"description": "Other words."}, ["description: changed"]),
        (more, {"description": "Say it."}, ["argument 'loud': new"]),
        (lambda: None, {"description": "Say it."}, ["result: changed", "argument 'text': gone"]),
    ],
)
def test_drift_is_refused(tmp_path: Path, function: Any, said: dict[str, Any], differences: list[str]) -> None:
    """Another tool under the same name and version is refused, with what differs: when the lock is loaded, when a range
    is resolved, and when tools are listed.
    """
    path = tmp_path / "escalade.lock"
    shop("a@1.0.0").write_lock(path)
    changed = Registry([tool(name="a", version="1.0.0", **said)(function)], name="shop")
    with pytest.raises(LockDrift, match="tool a@1.0.0 isn't what .* locked: ") as caught:
        changed.load_lock(path)
    assert sorted(caught.value.differences) == sorted(differences)
    with escalade.scope(lock=path):
        for ask in (lambda: changed.resolve("a"), changed.tools_for):
            with pytest.raises(LockDrift):
                ask()


def test_what_a_lock_does_not_have(tmp_path: Path) -> None:
    """A tool, a range or a version that wasn't locked, or isn't there any more, is refused."""
    path = tmp_path / "escalade.lock"
    registry = shop("a@1.0.0", "a@2.0.0", "b@1.0.0")
    registry.write_lock(path, ["a@^1"])
    with escalade.scope(lock=path):
        assert versions(registry, "a", "a@1.0.0") == ["1.0.0", "1.0.0"]
        with pytest.raises(BadInput, match=r"has nothing for tool 'a' in '\^2' \(there: 1.0.0\); write it anew"):
            registry.resolve("a", "^2")
        with pytest.raises(BadInput, match="has nothing for tool 'b' in a stable version .there: no version of it"):
            registry.resolve("b")
        with pytest.raises(UnknownName):
            registry.resolve("ghost")
    with pytest.raises(BadInput, match="no version in '1.0.0'"):
        shop("a@2.0.0").load_lock(path)


def test_a_lock_is_for_a_whole_run(tmp_path: Path) -> None:
    """Set on the outermost scope, below a configured one too; never within a run."""
    path = tmp_path / "escalade.lock"
    registry = shop("a@1.0.0")
    registry.write_lock(path)
    with escalade.scope(), pytest.raises(BadInput, match="a lock holds for a whole run"):
        with escalade.scope(lock=path):
            pass
    escalade.configure()
    with escalade.scope(lock=path):
        assert versions(registry, "a") == ["1.0.0"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"lockfile": 2, "tools": []}', '{"lockfile": 1, "tools": [{}]}'])
def test_what_is_no_lock(tmp_path: Path, text: str) -> None:
    """Files that aren't locks, and none at all, are refused in one line."""
    path = tmp_path / "escalade.lock"
    path.write_text(text)
    with pytest.raises(BadInput, match="escalade.lock: "):
        Lock.load(path)
    with pytest.raises(BadInput, match="can't be read"):
        Lock.load(tmp_path / "nowhere")


def test_digests_say_what_a_spec_is() -> None:
    """The same spec has the same digests, in any registry; another field has another one."""
    one, same = (Locked.of(shop("a@1.0.0").spec("a")) for _ in range(2))
    other = Locked.of(shop("a@1.0.0", timeout=5).spec("a"))
    assert one == same
    assert (one.schema, one.spec == other.spec) == (other.schema, False)
    assert one.differences(other) == ["timeout: the default -> 5.0"]
    assert one.differences(same) == []


def test_tools_that_were_made_before_the_run(tmp_path: Path) -> None:
    """A lock holds for them as well: another version than the locked one, one that changed, and one that is not in the
    lock are refused, and the record says who asked.
    """
    registry, journal = shop("a@1.0.0", "b@1.0.0"), Journal()
    file = tmp_path / "escalade.lock"
    registry.write_lock(file, ["a@^1"])
    old = registry.resolve("a", "^1")
    registry.register(tool(name="a", version="1.1.0")(say))
    new, pinned, other = registry.resolve("a", "^1"), registry.resolve("a", "1.1.0"), registry.resolve("b")
    changed = shop("a@1.0.0", description="Shout it.").resolve("a")
    with escalade.scope(lock=file, recorder=journal):
        assert old(text="hi") == "hi"
        for refused in (new, pinned, changed):
            with pytest.raises(LockDrift):
                refused(text="hi")
        with pytest.raises(BadInput, match="has nothing for tool 'b'"):
            other(text="hi")
    assert [one.outcome for one in journal.denials()] == ["LockDrift", "LockDrift", "LockDrift", "BadInput"]
    with escalade.scope():
        assert new(text="hi") == "hi", "without a lock"
