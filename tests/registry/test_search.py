"""Search: what is found, in which order, and that nobody finds what he may not call."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import escalade
from escalade import Journal, Principal, Registry, Roles, ToolSpec, tool
from escalade.errors import NoScope, PermissionDenied, UnknownName
from escalade.registry.search import rank, words


def do(text: str = "") -> str:
    """Do it."""
    return text


def made(name: str, description: str = "", **said: Any) -> Any:
    return tool(name=name, description=description, **said)(do)


SHOP = [
    made("crm.search", "Finds customers by name or city.", tags=["crm", "lookup"], owner="sales"),
    made("crm.update", "Changes the address of a customer.", tags=["crm"], owner="sales"),
    made("mail.send", "Sends a letter to somebody.", tags=["post"], owner="office"),
    made("weather.now", "The weather in a city.", tags=["outside"], owner="labs"),
    made("web.search", "Searches the web.", tags=["outside", "lookup"], owner="labs"),
    made("pay.charge", "Charges the card of a customer.", tags=["money"], owner="finance"),
]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("customer", ["crm.update", "pay.charge", "crm.search"]),
        ("customers", ["crm.update", "pay.charge", "crm.search"]),
        ("crm customer", ["crm.update", "crm.search", "pay.charge"]),
        ("search", ["web.search", "crm.search"]),
        ("search crm", ["crm.search"]),
        ("weather city", ["weather.now"]),
        ("sales", ["crm.update", "crm.search"]),
        ("lookup", ["web.search", "crm.search"]),
        ("cust", ["crm.update", "pay.charge", "crm.search"]),
        ("crm.search", ["crm.search"]),
        ("crmSearch", ["crm.search"]),
        ("CUSTOMER CARD", ["pay.charge"]),
        ("zebra", []),
        ("?!", []),
    ],
)
def test_ranking(query: str, expected: list[str]) -> None:
    """Names weigh more than tags, tags more than owners, these more than descriptions; rare words more than common
    ones; short pages more than long ones; word beginnings count half.
    """
    found = [one.spec.name for one in rank(query, [one.spec for one in SHOP])]
    assert found[: len(expected)] == expected
    if not expected:
        assert found == []


def test_scores_fall() -> None:
    """Best first; every score is above zero; a limit cuts the tail."""
    found = rank("customer search city", [one.spec for one in SHOP])
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert all(one.score > 0 for one in found)
    assert rank("customer search city", [one.spec for one in SHOP], 2) == found[:2]


def test_an_empty_query_finds_all_by_name() -> None:
    """As a list; so does one of blanks."""
    assert [one.spec.name for one in rank(" ", [one.spec for one in SHOP])] == sorted(one.spec.name for one in SHOP)
    assert rank("", []) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("crm.searchCustomers", ("crm", "search", "customer")),
        ("HTTPServer v2", ("http", "server", "v", "2")),
        ("address", ("address",)),
        ("gas", ("gas",)),
        ("Straße über 10km", ("stra", "ß", "e", "über", "10", "km")),
    ],
)
def test_words(text: str, expected: tuple[str, ...]) -> None:
    """Camel case, dots and digits part words; plurals are cut."""
    assert words(text)[0] == expected[0]
    assert set(expected[:1]) <= set(words(text))
    if text.isascii():
        assert words(text) == expected


# ------------------------------------------------------------------------------------------- list == search == call


PARTS = ["a", "b", "c"]
names = st.builds(lambda a, b: f"{a}.{b}", st.sampled_from(PARTS), st.sampled_from(PARTS))
patterns = st.sampled_from(["*", "a.*:call", "*.a:call", "b.b:call", "c.*:call", "x:read", "*:call"])


@settings(max_examples=60)
@given(
    st.sets(names, min_size=1, max_size=6),
    st.dictionaries(st.sampled_from(["one", "two"]), st.lists(patterns, max_size=2), min_size=1),
    st.sets(st.sampled_from(["one", "two"])),
    st.sampled_from(["a", "b c", "shared words", ""]),
)
def test_list_search_and_call_agree(tools: set[str], grants: dict[str, list[str]], roles: set[str], query: str) -> None:
    """For any policy: what is listed is what an empty search finds, what can be called, and what a model can get by
    name; and a search finds the same tools with the same scores as in a registry without the others.
    """
    registry = Registry([made(name, f"shared words of {name}") for name in sorted(tools)], name="mixed")
    if not any(grants.values()):
        grants = {**grants, "other": ["x:read"]}
    access = Roles({"one": [], "two": [], **grants})
    with escalade.scope(principal=Principal(roles=frozenset(roles)), access=access):
        listed = {spec.name for spec in registry.specs_for()}
        assert {one.name for one in registry.tools_for()} == {name.replace(".", "_") for name in listed}
        assert {found.spec.name for found in registry.search("", limit=None)} == listed
        for name in tools:
            callable_ = _works(lambda name=name: registry.resolve(name)(text="x"))
            assert callable_ == (name in listed)
            assert _works(lambda name=name: registry.tool_for(name)) == callable_
        alone = Registry([made(name, f"shared words of {name}") for name in sorted(listed)], name="alone")
        assert registry.search(query, limit=None) == alone.search(query, limit=None)


def _works(call: Any) -> bool:
    try:
        call()
    except (PermissionDenied, UnknownName):
        return False
    return True


def test_searching_needs_a_scope() -> None:
    """Without a scope nobody is there who could find anything."""
    with pytest.raises(NoScope):
        Registry(SHOP, name="shop").search("crm")


def test_a_denied_tool_is_an_unknown_tool() -> None:
    """To who asks by name, both are the same line, which tells of no tool that he may not see. The record differs, and
    so does what the tool is charged with.
    """
    registry = Registry(SHOP, name="shop")
    journal = Journal()
    access = Roles({"seller": ["crm.search:call"]})
    with escalade.scope(principal=Principal("ana", roles={"seller"}), access=access, recorder=journal):
        assert registry.tool_for("crm_search").spec.label == "crm.search@1.0.0"
        said = []
        for name in ("pay.charge", "pay.change"):
            with pytest.raises(UnknownName) as caught:
                registry.tool_for(name)
            said.append(str(caught.value).replace(name, "NAME"))
    assert said[0] == said[1] == "unknown tool 'NAME' (known: crm.search)"
    denied, unknown = journal.denials()
    assert (denied.resource, denied.version, denied.outcome) == ("pay.charge", "1.0.0", "PermissionDenied")
    assert denied.rule.startswith("nothing grants 'pay.charge:call'")
    assert (unknown.resource, unknown.version, unknown.outcome, unknown.rule) == ("pay.change", "", "UnknownName", "")
    charged = next(row for row in registry.usage() if row.name == "pay.charge")
    assert (charged.denied, charged.refusals) == (1, {"PermissionDenied": 1})


def test_a_model_may_ask_for_a_range() -> None:
    """`tool_for` takes ranges, and a tool without such a version is unknown in that range to everybody."""
    registry = Registry([made("a"), made("a", version="2.0.0")], name="shop")
    with escalade.scope():
        assert registry.tool_for("a", "^1").spec.version == "1.0.0"
        with pytest.raises(escalade.BadInput, match="no version in '\\^3'"):
            registry.tool_for("a", "^3")


def test_only_the_newest_stable_version_is_found() -> None:
    """What search shows is what a call without a range would get."""
    registry = Registry(
        [made("a", "old words"), made("a", "new words", version="1.1.0"), made("a", "next", version="2.0.0-rc.1")],
        name="shop",
    )
    with escalade.scope():
        assert [found.spec.label for found in registry.search("words")] == ["a@1.1.0"]
        assert registry.search("next") == []


def test_specs_are_enough() -> None:
    """`rank` needs no registry."""
    assert rank("x", [ToolSpec(name="x")])[0].spec.name == "x"
