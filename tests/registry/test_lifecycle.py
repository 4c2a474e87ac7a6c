"""What becomes of versions: deprecated, past their sunset, yanked."""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any

import dspy
import pytest

import escalade
from escalade import Registry, tool
from escalade.errors import BadInput, ToolRetired, UnknownName


def say(text: str = "") -> str:
    """Say it."""
    return text


def shop(*labels: str, **said: Any) -> Registry:
    made = [tool(name=name, version=version)(say) for name, version in (one.split("@") for one in labels)]
    return Registry(made, name="shop", **said)


ALL = ("a@1.0.0", "a@1.1.0", "a@2.0.0")


def test_a_deprecated_version_warns_once_per_run(caplog: pytest.LogCaptureFixture) -> None:
    """It is found as before; each run is told once, by an event and in the log, from whatever thread it asks."""
    registry = shop(*ALL)
    registry.deprecate("a", "1.1.0", message="slow", sunset="2999-12-31", replacement="a@^2")
    heard: list[Any] = []
    for _ in range(2):
        with escalade.scope(listen=heard.append):
            asks = [(lambda **_: registry.resolve("a", "^1"), {})] * 3
            dspy.Parallel(num_threads=3, disable_progress_bar=True)(asks)
            assert registry.resolve("a", "^1").spec.version == "1.1.0"
            registry.resolve("a", "~1.1")
            registry.resolve("a")
    expected = "tool a@1.1.0 is deprecated: slow; sunset on 2999-12-31; use a@^2"
    assert [(type(event).__name__, event.tool, event.warning) for event in heard] == [
        ("ToolWarned", "a@1.1.0", expected)
    ] * 2
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [expected] * 2


def test_outside_of_runs_it_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    """A registry says it once per process there."""
    registry = shop(*ALL)
    registry.deprecate("a")
    for _ in range(3):
        registry.resolve("a")
    assert [record.getMessage() for record in caplog.records] == ["tool a@2.0.0 is deprecated"]


def test_all_versions_in_a_range() -> None:
    """`deprecate` takes a range, and without one all there are."""
    registry = shop(*ALL)
    registry.deprecate("a", "^1", message="old")
    assert [bool(registry.status("a", v).deprecated) for v in ("1.0.0", "1.1.0", "2.0.0")] == [True, True, False]
    registry.deprecate("a")
    assert registry.status("a", "2.0.0").deprecated is not None


PAST = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=2)


def test_past_its_sunset_it_is_refused() -> None:
    """By resolving, by listing, by searching, and by a tool that was made before; the message says what to use. Other
    versions are as they were.
    """
    registry = shop(*ALL)
    before = registry.resolve("a")
    registry.deprecate("a", "2.0.0", sunset=PAST, replacement="b@^1")
    message = rf"tool a@2.0.0 was retired after {PAST}; use b@\^1"
    with escalade.scope():
        for ask in (lambda: registry.resolve("a"), lambda: registry.resolve("a", "2.0.0"), lambda: before(text="x")):
            with pytest.raises(ToolRetired, match=message):
                ask()
        assert registry.tools_for() == []
        assert registry.search("a") == []
        with pytest.raises(UnknownName):
            registry.tool_for("a")
        assert registry.resolve("a", "^1")(text="x") == "x"
    assert registry.usage()[-1].refusals == {"ToolRetired": 1}


def test_past_its_sunset_it_may_only_warn(caplog: pytest.LogCaptureFixture) -> None:
    """As the registry is set."""
    registry = shop(*ALL, sunset="warn")
    registry.deprecate("a", "2.0.0", sunset=PAST)
    with escalade.scope():
        assert registry.resolve("a")(text="x") == "x"
        assert [one.spec.label for one in registry.tools_for()] == ["a@2.0.0"]
    assert f"sunset on {PAST}" in caplog.text


def test_the_day_of_the_sunset_still_counts() -> None:
    """The last day is a day on which it works."""
    registry = shop("a@1.0.0")
    registry.deprecate("a", sunset=dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1))
    assert registry.resolve("a").spec.version == "1.0.0"


@pytest.mark.parametrize("sunset", ["soon", "2026-13-01", 3, dt.datetime(2026, 1, 1, tzinfo=dt.UTC)])
def test_what_is_no_date(sunset: Any) -> None:
    """One line, with an example."""
    with pytest.raises(BadInput, match="sunset: expected a date like '2026-12-31', got"):
        shop("a@1.0.0").deprecate("a", sunset=sunset)


def test_a_yanked_version_is_out_of_ranges(caplog: pytest.LogCaptureFixture) -> None:
    """Ranges find the next best; an exact pin still works and warns; a range with nothing else says why."""
    registry = shop(*ALL)
    assert registry.resolve("a").spec.version == "2.0.0"
    registry.yank("a", "2.0.0", "it lost customers")
    with escalade.scope():
        assert registry.resolve("a").spec.version == "1.1.0"
        assert [one.spec.label for one in registry.tools_for()] == ["a@1.1.0"]
        assert registry.resolve("a", "2.0.0")(text="x") == "x"
        with pytest.raises(BadInput, match=r"no version in '\^2'; there is: 1.0.0, 1.1.0, 2.0.0 \(yanked\)"):
            registry.resolve("a", "^2")
    assert caplog.messages == ["tool a@2.0.0 was yanked: it lost customers"]


def test_a_tool_without_versions_left_is_not_listed() -> None:
    """All yanked: found by nobody but by pins."""
    registry = shop("a@1.0.0")
    registry.yank("a", "1.0.0")
    with escalade.scope():
        assert registry.tools_for() == []
        assert registry.resolve("a", "=1.0.0").spec.label == "a@1.0.0"


@pytest.mark.parametrize("ask", ["deprecate", "yank", "status"])
def test_what_is_not_there(ask: str) -> None:
    """Unknown tools and versions are said to be unknown."""
    registry = shop("a@1.0.0")
    with pytest.raises(UnknownName, match="unknown tool 'b'"):
        getattr(registry, ask)("b", "1.0.0")
    with pytest.raises(BadInput, match="no version in '9.0.0'"):
        getattr(registry, ask)("a", "9.0.0")


def test_a_mistake_that_was_yanked_is_mended() -> None:
    """A version that broke its promise, and was yanked, made none: the next one is compared with the one before it."""

    def other(number: int) -> int:
        """Something else."""
        return number

    registry = shop("a@1.0.0")
    registry.register(tool(name="a", version="1.1.0")(other), gate="off")
    registry.yank("a", "1.1.0", "it was another tool")
    registry.register(tool(name="a", version="1.1.1")(say))
    assert registry.resolve("a").spec.version == "1.1.1"
