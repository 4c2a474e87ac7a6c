"""Ranges against npm's rules: a second implementation of them, and npm's own documented examples.

The oracle in `npm_rules.py` was compared with the `semver` package of npm itself (7.8.5) on 60,000 generated pairs, and
agreed on all of them.
"""

from __future__ import annotations

import random

import pytest

from escalade.errors import BadInput
from escalade.registry.versions import is_pin, matcher, next_breaking, parse_version
from tests.registry import npm_rules

PAIRS = 12_000


@pytest.mark.slow
def test_twelve_thousand_pairs() -> None:
    """Generated ranges and versions, half of them at an edge of the range and half of them pre-releases: the resolver
    says what the oracle says, on every pair.
    """
    rng = random.Random(20_000)
    found = {True: 0, False: 0}
    pre = 0
    for _ in range(PAIRS):
        text = npm_rules.some_range(rng)
        version = npm_rules.near(rng, text) if rng.random() < 0.6 else npm_rules.some_version(rng)
        expected = npm_rules.satisfies(version, text)
        assert matcher(text)(version) is expected, (text, version)
        found[expected] += 1
        pre += expected and "-" in version
    assert min(found.values()) > PAIRS // 10, "both answers must be common"
    assert pre > PAIRS // 100, "found pre-releases, too"


def test_the_order_is_the_oracles() -> None:
    """Sort keys order any two versions as section 11 of semver does."""
    rng = random.Random(5)
    for _ in range(3_000):
        one, other = npm_rules.some_version(rng), npm_rules.some_version(rng)
        order = npm_rules.compare(npm_rules.parse_version(one), npm_rules.parse_version(other))
        mine, others = parse_version(one), parse_version(other)
        assert (mine > others) - (mine < others) == order, (one, other)


@pytest.mark.parametrize(
    ("text", "desugared"),
    [  # every equivalence of the README of node-semver
        ("1.2.3 - 2.3.4", ">=1.2.3 <=2.3.4"),
        ("1.2 - 2.3.4", ">=1.2.0 <=2.3.4"),
        ("1.2.3 - 2.3", ">=1.2.3 <2.4.0-0"),
        ("1.2.3 - 2", ">=1.2.3 <3.0.0-0"),
        ("*", ">=0.0.0"),
        ("1.x", ">=1.0.0 <2.0.0-0"),
        ("1.2.x", ">=1.2.0 <1.3.0-0"),
        ("", ">=0.0.0"),
        ("1", ">=1.0.0 <2.0.0-0"),
        ("1.2", ">=1.2.0 <1.3.0-0"),
        ("~1.2.3", ">=1.2.3 <1.3.0-0"),
        ("~1.2", ">=1.2.0 <1.3.0-0"),
        ("~1", ">=1.0.0 <2.0.0-0"),
        ("~0.2.3", ">=0.2.3 <0.3.0-0"),
        ("~0.2", ">=0.2.0 <0.3.0-0"),
        ("~0", ">=0.0.0 <1.0.0-0"),
        ("~1.2.3-beta.2", ">=1.2.3-beta.2 <1.3.0-0"),
        ("^1.2.3", ">=1.2.3 <2.0.0-0"),
        ("^0.2.3", ">=0.2.3 <0.3.0-0"),
        ("^0.0.3", ">=0.0.3 <0.0.4-0"),
        ("^1.2.3-beta.2", ">=1.2.3-beta.2 <2.0.0-0"),
        ("^0.0.3-beta", ">=0.0.3-beta <0.0.4-0"),
        ("^1.2.x", ">=1.2.0 <2.0.0-0"),
        ("^0.0.x", ">=0.0.0 <0.1.0-0"),
        ("^0.0", ">=0.0.0 <0.1.0-0"),
        ("^1.x", ">=1.0.0 <2.0.0-0"),
        ("^0.x", ">=0.0.0 <1.0.0-0"),
    ],
)
def test_documented_equivalences(text: str, desugared: str) -> None:
    """Each shorthand finds exactly the versions of the comparators that npm's documentation writes it out to."""
    rng = random.Random(7)
    versions = [npm_rules.near(rng, desugared) for _ in range(60)] + [npm_rules.some_version(rng) for _ in range(60)]
    for version in versions:
        assert matcher(text)(version) == matcher(desugared)(version) == npm_rules.satisfies(version, text), version


@pytest.mark.parametrize(
    ("text", "version", "expected"),
    [
        (">=1.2.7", "1.2.8", True),
        (">=1.2.7", "2.5.3", True),
        (">=1.2.7", "1.2.6", False),
        (">=1.2.7 <1.3.0", "1.2.99", True),
        (">=1.2.7 <1.3.0", "1.3.0", False),
        ("1.2.7 || >=1.2.9 <2.0.0", "1.4.6", True),
        ("1.2.7 || >=1.2.9 <2.0.0", "1.2.8", False),
        (">1.2.3-alpha.3", "1.2.3-alpha.7", True),
        (">1.2.3-alpha.3", "3.4.5-alpha.9", False),
        ("~1.1 ~1.2.0-beta", "1.2.0-beta", False),  # an upper bound keeps out the pre-releases of what it excludes
        ("^1.2.3--", "1.2.3--", True),  # a dash is a letter there
        ("* || 1.2.3-rc.1", "1.2.3-rc.1", False),  # `*` says it all, and no pre-release was asked for in it
        ("0 ~0.0.0-rc.1", "0.0.0-rc.1", True),
        (">x || 1", "1.0.0", True),
        ("<x", "0.0.0", False),
    ],
)
def test_examples(text: str, version: str, expected: bool) -> None:
    """Examples of npm's documentation, and corners in which libraries disagree with npm."""
    assert matcher(text)(version) is expected
    assert npm_rules.satisfies(version, text) is expected


@pytest.mark.parametrize("text", ["1.x.3", "1.2.3.4", "01.2.3", "1.2.3-01", "^", "<", "1.2-rc.1", "a.b", "1 2 latest"])
def test_garbage_in_both(text: str) -> None:
    """What is no range for npm is none here."""
    with pytest.raises(BadInput):
        matcher(text)
    with pytest.raises(npm_rules.NoRange):
        npm_rules.desugar(text)


def test_an_endless_range_is_refused() -> None:
    """Ranges come from outside: more than 256 characters are none, as in npm."""
    with pytest.raises(BadInput):
        matcher("1 || " * 100 + "1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1.2.3", True), ("=1.2.3", True), ("v1.2.3-rc.1", True), ("1.2", False), ("^1.2.3", False), (None, False)],
)
def test_pins(text: str | None, expected: bool) -> None:
    """A pin asks for one version; everything else is a range."""
    assert is_pin(text) is expected


@pytest.mark.parametrize("version", ["1.4.2", "0.4.2", "0.0.2", "3.0.0"])
def test_the_next_breaking_version_is_out_of_the_caret(version: str) -> None:
    """`^version` doesn't take it."""
    assert not matcher(f"^{version}")(next_breaking(version))
