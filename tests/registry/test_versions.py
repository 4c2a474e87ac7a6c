"""Versions and ranges, against the published rules and an independent implementation."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import semantic_version
from hypothesis import given, settings

from escalade.errors import BadInput
from escalade.registry.versions import is_stable, matcher, newest, parse_version

numbers = st.integers(0, 4).map(str)
stable = st.builds(lambda a, b, c: f"{a}.{b}.{c}", numbers, numbers, numbers)
tags = st.sampled_from(["alpha", "alpha.1", "beta.2", "beta.11", "rc.1", "1", "x-y"])
prerelease = st.builds(lambda version, tag: f"{version}-{tag}", stable, tags)
partial = st.one_of(numbers, st.builds(lambda a, b: f"{a}.{b}", numbers, numbers), stable)
comparators = st.builds(
    lambda op, version: op + version, st.sampled_from(["", "^", "~", ">=", "<", ">", "<=", "="]), partial
)
wildcards = st.builds(lambda a, x: f"{a}.{x}", numbers, st.sampled_from("xX*"))
hyphens = st.builds(lambda a, b: f"{a} - {b}", stable, stable)
conjunctions = st.lists(comparators | wildcards, min_size=1, max_size=2).map(" ".join) | hyphens | st.just("*")
ranges = st.lists(conjunctions, min_size=1, max_size=2).map(" || ".join)


@settings(max_examples=200)
@given(ranges, st.lists(stable, min_size=8, max_size=12))
def test_ranges_mean_what_npm_means(text: str, versions: list[str]) -> None:
    """For stable versions and any range, an independent implementation of npm's rules gives the same answers."""
    matches, oracle = matcher(text), semantic_version.NpmSpec(text)
    for version in versions:
        assert matches(version) == oracle.match(semantic_version.Version(version)), (text, version)


@given(ranges, prerelease)
def test_a_pre_release_is_never_found_by_who_does_not_ask(text: str, version: str) -> None:
    """A range that names no pre-release matches none, as npm has it (other than under the name of `*`)."""
    assert not matcher(text)(version)


@pytest.mark.parametrize(
    ("text", "version", "expected"),
    [
        (">1.2.3-alpha.3", "1.2.3-alpha.7", True),  # the examples of node-semver's own page
        (">1.2.3-alpha.3", "3.4.5-alpha.9", False),
        (">1.2.3-alpha.3", "3.4.5", True),
        ("^1.2.3-beta.2", "1.2.3-beta.4", True),
        ("^1.2.3-beta.2", "1.2.4-beta.2", False),
        ("^1.2.3-beta.2", "1.9.0", True),
        ("~1.2.3-beta.2", "1.2.9", True),
        ("~1.2.3-beta.2", "1.3.0", False),
        ("^0.2.3", "0.2.9", True),
        ("^0.2.3", "0.3.0", False),
        ("^0.0.3", "0.0.4", False),
        ("~1", "1.9.9", True),
        ("1.2.3 - 2.3", "2.3.9", True),
        ("1.2.3 - 2.3.4", "2.3.5", False),
        ("<2", "2.0.0-rc.1", False),
        (">=1.2.7 <1.3.0 || >=2", "2.0.0", True),
        ("=1.2.3", "1.2.3", True),
        ("2.0.0-rc.1", "2.0.0-rc.1", True),
    ],
)
def test_examples_of_the_rules(text: str, version: str, expected: bool) -> None:
    """Pre-releases, zero versions, hyphens and unions, as npm documents them."""
    assert matcher(text)(version) is expected


@given(st.lists(stable | prerelease, min_size=2, max_size=8))
def test_the_order_is_semvers(versions: list[str]) -> None:
    """Versions sort as the semver specification has it, pre-releases before their release and numerically inside."""
    expected = sorted(map(semantic_version.Version, versions))
    assert sorted(map(semantic_version.Version, sorted(versions, key=parse_version))) == expected
    assert list(map(str, expected)) == sorted(versions, key=parse_version) or len(set(versions)) < len(versions)


@given(st.lists(stable | prerelease, max_size=8), st.none() | ranges)
def test_newest_is_the_maximum_of_what_matches(versions: list[str], wanted: str | None) -> None:
    """`newest` gives the greatest version in the range; without a range, the greatest that is no pre-release."""
    found = newest(versions, wanted)
    fitting = [v for v in versions if (is_stable(v) if wanted is None else matcher(wanted)(v))]
    assert found == max(fitting, key=semantic_version.Version, default=None)


@pytest.mark.parametrize("text", ["1", "1.2", "v1.2.3", "1.2.3.4", "01.2.3", "1.2.3-", "", "latest", "1.2.3-01"])
def test_what_is_no_version(text: str) -> None:
    """Only full semantic versions are versions."""
    with pytest.raises(BadInput, match="not a semantic version"):
        parse_version(text)


def test_build_metadata_is_refused() -> None:
    """Two builds of one version could not be told apart by any range."""
    with pytest.raises(BadInput, match="build metadata has no place"):
        parse_version("1.2.3+abc")


@pytest.mark.parametrize(
    "text", ["latest", "^^1", ">>1", "1.2.3.4", ">=1 foo", "one", "^", "1 - ", "1 ||| 2", "1 && 2"]
)
def test_what_is_no_range(text: str) -> None:
    """Garbage is refused with examples, never taken for a range that matches nothing."""
    with pytest.raises(BadInput, match="not a range of versions"):
        matcher(text)
