"""The catalogue: registering, resolving, who sees what, usage."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import escalade
from escalade import Journal, Principal, Registry, Roles, tool
from escalade.errors import BadInput, DuplicateVersion, NoScope, ToolError, UnknownName
from escalade.money import Money
from escalade.registry.catalogue import find_registry
from escalade.registry.tools import ToolDefinition


def say(text: str = "") -> str:
    """Say it."""
    return text


def versions(*labels: str) -> Registry:
    """A registry with these tools, as `name@version`."""
    return Registry([tool(name=name, version=version)(say) for name, version in (one.split("@") for one in labels)])


CRM = ("crm.search@1.0.0", "crm.search@1.2.0", "crm.search@1.10.0", "crm.search@2.0.0", "crm.search@3.0.0-rc.1")


@pytest.mark.parametrize("asked", [("crm.search", 1), ("crm.search", ["^1"]), (1,), (None,)])
@pytest.mark.parametrize("way", ["get_tool", "spec"])
def test_what_is_no_name_and_no_range(way: str, asked: Any) -> None:
    """It is said what was expected, and what came."""
    said = r"^expected the name of a tool and a range of versions, such as 'crm.search' and '\^1.2', got "
    with pytest.raises(BadInput, match=said):
        getattr(versions("crm.search@1.0.0"), way)(*asked)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, "2.0.0"),
        ("^1.2", "1.10.0"),
        ("~1.2", "1.2.0"),
        ("1.x", "1.10.0"),
        (">=1 <2", "1.10.0"),
        ("1.0.0", "1.0.0"),
        ("^3.0.0-rc.0", "3.0.0-rc.1"),
        ("*", "2.0.0"),
    ],
)
def test_resolving(wanted: str | None, found: str) -> None:
    """Ranges as npm writes them; none is the newest stable version; pre-releases only for who asks."""
    registry = versions(*CRM)
    assert registry.resolve("crm.search", wanted).spec.version == found
    assert registry.get_tool("crm.search", wanted).spec.version == found
    assert registry.spec("crm.search", wanted).version == found
    if wanted is not None:
        assert registry.resolve(f"crm.search@{wanted}").spec.version == found


def test_a_new_version_is_found_at_once() -> None:
    """What was resolved before is not what is resolved after a newer version was registered."""
    registry = versions("a@1.0.0")
    assert registry.resolve("a", "^1").spec.version == "1.0.0"
    registry.register(tool(name="a", version="1.1.0")(say))
    assert registry.resolve("a", "^1").spec.version == "1.1.0"


@pytest.mark.parametrize(
    ("name", "wanted", "error", "message"),
    [
        ("crm.serch", None, UnknownName, "unknown tool 'crm.serch'; did you mean 'crm.search'"),
        (
            "crm.search",
            "^9",
            BadInput,
            "tool 'crm.search' has no version in '^9'; there is: 1.0.0, 1.2.0, 1.10.0, 2.0.0, 3",
        ),
        ("crm.search", "latest", BadInput, "not a range of versions: 'latest'"),
        ("beta", None, BadInput, "tool 'beta' has no stable version; there is: 1.0.0-rc.1"),
    ],
)
def test_what_can_not_be_resolved(name: str, wanted: str | None, error: type[Exception], message: str) -> None:
    """Unknown names, garbage, and ranges without a version each say what there is."""
    registry = versions(*CRM, "beta@1.0.0-rc.1")
    with pytest.raises(error) as caught:
        registry.resolve(name, wanted)
    assert message in str(caught.value)


def test_versions_are_immutable() -> None:
    """The same name and version is refused, for another function and for the very same definition."""
    registry = versions("a@1.0.0")
    definition = tool(name="a", version="1.0.1")(say)
    registry.register(definition)
    for again in (definition, tool(name="a", version="1.0.0")(say)):
        with pytest.raises(DuplicateVersion, match="is registered already; versions are immutable"):
            registry.register(again)
    assert [spec.label for spec in registry.specs()] == ["a@1.0.0", "a@1.0.1"]


def test_tools_that_models_could_not_tell_apart() -> None:
    """`crm.search` and `crm_search` are one name to a model: the second is refused, and leaves no trace."""
    registry = versions("crm.search@1.0.0")
    with pytest.raises(BadInput, match=r"models would call it 'crm_search', as they do 'crm.search'"):
        registry.register(tool(name="crm_search")(say))
    assert [spec.name for spec in registry.specs()] == ["crm.search"]


def test_registering_functions() -> None:
    """A plain function becomes a tool by being registered, also with `register` as a decorator."""
    registry = Registry([say])

    @registry.register
    def whisper(text: str) -> str:
        """Whisper."""
        return text

    assert isinstance(whisper, ToolDefinition)
    assert [spec.name for spec in registry.specs()] == ["say", "whisper"]
    with pytest.raises(ToolError):
        whisper("x")


def test_several_tools_at_once() -> None:
    """`tools` resolves a list; two versions of one tool in one list couldn't be told apart."""
    registry = versions(*CRM, "mail.send@1.0.0")
    assert [t.spec.label for t in registry.tools(["crm.search@^1", "mail.send"])] == [
        "crm.search@1.10.0",
        "mail.send@1.0.0",
    ]
    with pytest.raises(BadInput, match=r"couldn't tell crm.search@1.10.0 from crm.search@2.0.0: both are 'crm_search'"):
        registry.tools(["crm.search@^1", "crm.search@2"])


def names(registry: Registry, principal: Principal | None = None) -> list[str]:
    return [t.spec.label for t in registry.tools_for(principal)]


def test_who_may_not_call_a_tool_does_not_see_it() -> None:
    """One sees the newest stable version of each tool that everybody in the scope may call, and nothing else."""
    registry = versions(*CRM, "mail.send@1.0.0", "beta@1.0.0-rc.1")
    access = Roles({"analyst": ["crm.*:call"], "admin": ["*"], "guest": []})

    def who(*roles: str) -> Principal:
        return Principal("ana", roles=frozenset(roles))

    with escalade.scope():
        assert names(registry) == ["crm.search@2.0.0", "mail.send@1.0.0"]
    with escalade.scope(principal=who("analyst"), access=access):
        assert names(registry) == ["crm.search@2.0.0"]
        assert names(registry, who("admin")) == ["crm.search@2.0.0"], "asking for somebody else doesn't widen"
        assert names(registry, who("guest")) == []
        with pytest.raises(UnknownName, match="unknown role 'ghost'"):
            registry.tools_for(who("ghost"))
    escalade.configure(access=access)
    assert names(registry) == [], "a server in which nobody asked yet"
    assert names(registry, who("admin")) == ["crm.search@2.0.0", "mail.send@1.0.0"]


@pytest.mark.parametrize("wanted", ["^9", "9.9.9", "not a range", "2.0.0", None])
def test_a_denied_tool_is_unknown_in_any_version(wanted: str | None) -> None:
    """Who may not call a tool learns nothing of its versions either, whatever he asks for: the record knows."""
    registry, journal = versions(*CRM, "mail.send@1.0.0"), Journal()
    scope = escalade.scope(
        principal=Principal("ana", roles=frozenset({"writer"})),
        access=Roles({"writer": ["mail.*:call"]}),
        recorder=journal,
    )
    with scope:
        for asked in (("crm.search", wanted), ("crm_search", wanted)):
            with pytest.raises(UnknownName) as caught:
                registry.tool_for(*asked)
            assert str(caught.value) == str(UnknownName("tool", asked[0], ["mail.send"]))
        with pytest.raises(BadInput, match="there is: 1.0.0"):
            registry.tool_for("mail.send", "^9")
        assert registry.tool_for("mail_send", "1.0.0").spec.label == "mail.send@1.0.0"
    assert {(one.resource, one.outcome) for one in journal.denials()} == {("crm.search", "PermissionDenied")}


@pytest.mark.parametrize("name", ["crm.search@1.0.0", "crm.search@^9", "crm.search@", "crm.search@x y", "ghost@1.0.0"])
def test_a_model_does_not_choose_versions(name: str) -> None:
    """A name that a model says is a name and nothing else: no way to a version that is yanked, or in a rollout."""
    registry = versions(*CRM)
    with escalade.scope(), pytest.raises(UnknownName, match="unknown tool"):
        registry.tool_for(name)


def test_seeing_is_calling() -> None:
    """For every principal: a tool is listed exactly when calling it is allowed."""
    registry = versions("a.x@1.0.0", "a.y@1.0.0", "b.x@1.0.0")
    access = Roles({"a": ["a.*:call"], "x": ["*.x:call"], "none": []})
    for roles in (set(), {"a"}, {"x"}, {"a", "x"}, {"none"}):
        with escalade.scope(principal=Principal(roles=frozenset(roles)), access=access):
            seen = set(names(registry))
            for spec in registry.specs():
                try:
                    registry.resolve(spec.name)(text="hi")
                except escalade.PermissionDenied:
                    assert spec.label not in seen
                else:
                    assert spec.label in seen


def test_listing_needs_a_scope() -> None:
    """Without a scope nobody is there who could see anything."""
    with pytest.raises(NoScope, match="listing the tools"):
        versions("a@1.0.0").tools_for()


def test_usage_per_version() -> None:
    """Calls, failures, denials, percentiles and cost, apart for each version, shared by all copies of a tool."""

    def fails(text: str) -> str:
        """Fail."""
        raise ValueError(text)

    registry = Registry([tool(name="a", cost="0.001")(say), tool(name="a", version="2.0.0", cost=None)(fails)])
    one, two = registry.resolve("a", "1"), registry.resolve("a")
    with escalade.scope():
        for copied in (one, copy.deepcopy(one), registry.resolve("a", "1.0.0")):
            copied(text="x")
        with pytest.raises(ValueError):
            two(text="x")
        with pytest.raises(escalade.InvalidArguments):
            two(txet="x")
    first, second = registry.usage()
    assert (first.name, first.version, first.calls, first.failures, first.denied) == ("a", "1.0.0", 3, 0, 0)
    assert (first.cost, first.unpriced) == (Money.of("0.003"), 0)
    assert first.p50 is not None
    assert first.p95 is not None
    assert 0 < first.p50 <= first.p95
    assert (second.version, second.calls, second.failures, second.denied, second.unpriced) == ("2.0.0", 1, 1, 1, 1)
    assert second.cost == Money(0)


def test_logging_usage_from_elsewhere() -> None:
    """Uses that took place in another process can be counted too, with a cost or without."""
    registry = versions("a@1.0.0", "a@2.0.0")
    registry.log_usage("a", 0.5, True, cost="0.01")
    registry.log_usage("a", 1.5, False, version="1.0.0")
    one, two = registry.usage()
    assert (one.calls, one.failures, one.p50, one.unpriced) == (1, 1, 1.5, 1)
    assert (two.calls, two.failures, two.p95, two.cost) == (1, 0, 0.5, Money.of("0.01"))
    with pytest.raises(UnknownName):
        registry.log_usage("b", 0.5, True)


def test_registries_are_found_by_name() -> None:
    """The newest registry of a name is found; an older one of the same name knows that it isn't."""
    old = Registry(name="mine")
    new = Registry(name="mine")
    assert find_registry("mine") is new
    assert (old.findable, new.findable) == (False, True)
    assert copy.deepcopy(new) is new
    with pytest.raises(UnknownName, match="unknown registry 'yours'"):
        find_registry("yours")


def test_registering_from_many_threads() -> None:
    """Of 16 threads that register the same version, one succeeds."""
    registry = Registry()
    definition = tool(name="a")(say)

    def register(_: int) -> bool:
        try:
            registry.register(definition)
        except DuplicateVersion:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(register, range(16))) == 1


def test_a_name_is_no_list_of_names(tmp_path: Path) -> None:
    """`registry.tools("crm.search")` means the tool, and not ten letters: it says how to write it."""
    registry = versions(*CRM)
    for call in (registry.tools, lambda wanted: registry.write_lock(tmp_path / "x.lock", wanted)):
        with pytest.raises(BadInput, match=r"^expected a list of names: \['crm.search'\]$"):
            call("crm.search")


@pytest.mark.parametrize("given", [say, tool(say), "crm"])
def test_a_tool_is_no_list_of_tools(given: Any) -> None:
    """Who forgets the brackets is told so."""
    with pytest.raises(BadInput, match=r"^a registry takes a list of tools, Registry\(\[...\]\), got "):
        Registry(given)


def test_errors_in_a_scope_know_of_what_may_be_seen() -> None:
    """Whatever looks for a name: in a scope, the error neither lists nor suggests a tool that may not be called there.
    Outside, and in a process that is configured for others to ask in, it knows all.
    """
    registry = Registry([tool(name=name)(say) for name in ("p.ok", "p.p")], name="told")
    access, who = Roles({"a": ["p.ok:call"]}), Principal(roles=frozenset({"a"}))
    looks = (
        registry.get_tool,
        registry.spec,
        registry.tool_for,
        lambda name: registry.tools([name]),
        registry.deprecate,
    )
    for look in looks:
        with escalade.scope(principal=who, access=access), pytest.raises(UnknownName) as seen:
            look("p.px")
        assert str(seen.value).endswith("(known: p.ok)")
    with pytest.raises(UnknownName, match="known: p.ok, p.p"):
        registry.get_tool("p.px")
    escalade.configure(access=access)
    with pytest.raises(UnknownName, match="known: p.ok, p.p"):
        registry.get_tool("p.px")
