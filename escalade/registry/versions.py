"""Versions of tools: semantic versions, and ranges as npm writes them.

    ^1.2      1.2 or newer, below 2          ~1.4      1.4 or newer, below 1.5
    1.x       any 1                          >=1 <2    both conditions
    1.2.3     exactly that                   1 || 3    either
    None      the newest stable one

Pre-releases (`2.0.0-rc.1`) are found only by who asks for them: by a range that names a pre-release of the same
major.minor.patch. Build metadata (`1.0.0+abc`) is refused: it has no place in the order, so that two builds could not
be told apart by any range. Rules: https://semver.org, https://github.com/npm/node-semver#ranges.

Ranges are compiled here, to intervals of sort keys: the libraries at hand disagree with npm where pre-releases meet
upper bounds (`~1.1 ~1.2.0-beta`) or have dashes in their names. `tests/registry/test_versions_oracle.py` holds this
module to a second implementation of the rules, which was itself compared with npm's code.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable

from escalade.errors import BadInput

Key = tuple[object, ...]
"""What versions are ordered by: numbers, stable or not, the parts of a pre-release."""


@functools.lru_cache(maxsize=65536)
def parse_version(text: str) -> Key:
    """A key that orders versions as semver does. Raises BadInput.

    >>> parse_version("1.10.0") > parse_version("1.9.0") > parse_version("1.9.0-rc.1")
    True
    """
    import semver

    try:
        version = semver.Version.parse(text)
    except (ValueError, TypeError):
        raise BadInput(f"not a semantic version: {text!r}; write it like '1.2.0' or '2.0.0-rc.1'") from None
    if version.build is not None:
        raise BadInput(f"version {text!r}: build metadata has no place in the order of versions; leave it out")
    return (version.major, version.minor, version.patch, *_prerelease_key(version.prerelease))


def is_stable(text: str) -> bool:
    """Not a pre-release."""
    return parse_version(text)[3] is True


def is_pin(text: str | None) -> bool:
    """Does it ask for exactly one version?"""
    return text is not None and _PIN.fullmatch(text.strip()) is not None


def pinned(text: str) -> str:
    """The version that a pin asks for."""
    return text.strip().lstrip("=v ")


@functools.lru_cache(maxsize=4096)
def matcher(text: str) -> Callable[[str], bool]:
    """A test for versions, compiled from a range once. Raises BadInput when it isn't one."""
    if not isinstance(text, str) or len(text) > 256:  # npm's own limit
        raise BadInput(_no_range(text))
    intervals = [_alternative(part, text) for part in text.split("||")]
    anything = next((one for one in intervals if one.unbounded), None)  # npm: then the others say nothing any more
    kept = intervals if anything is None else [anything]

    def matches(version: str) -> bool:
        key = parse_version(version)
        return any(interval.holds(key) for interval in kept)

    return matches


def newest(versions: Iterable[str], wanted: str | None = None) -> str | None:
    """The newest of `versions` in the range, the newest stable one for None; None when there is none. Raises
    BadInput.
    """
    matches = is_stable if wanted is None else matcher(wanted.strip())
    return max(filter(matches, versions), key=parse_version, default=None)


def selector(wanted: str | None) -> Callable[[str], bool]:
    """A test for the versions that are asked for: a range, a pin, or None for stable ones. Raises BadInput."""
    if wanted is None:
        return is_stable
    return pinned(wanted).__eq__ if is_pin(wanted) else matcher(wanted.strip())


def next_breaking(version: str) -> str:
    """The lowest version that `^version` doesn't take: what an incompatible change would have to be called.

    >>> next_breaking("1.4.2"), next_breaking("0.4.2"), next_breaking("0.0.2")
    ('2.0.0', '0.5.0', '0.0.3')
    """
    numbers = [int(str(part)) for part in parse_version(version)[:3]]
    place = next((i for i, number in enumerate(numbers) if number), 2)
    return ".".join(map(str, _raised(numbers, place)))


def next_minor(version: str) -> str:
    """The next version that adds something: 1.5.0 after 1.4.2."""
    return ".".join(map(str, _raised([int(str(part)) for part in parse_version(version)[:3]], 1)))


class _Interval:
    """What one side of `||` allows: from `low` to `high` (keys; with or without the bound itself), and pre-releases of
    the numbers that were named with one.
    """

    __slots__ = ("asked", "high", "high_in", "low", "low_in", "never")

    def __init__(self) -> None:
        self.low: Key | None = None
        self.high: Key | None = None
        self.low_in = self.high_in = True
        self.asked: set[Key] = set()
        self.never = False

    @property
    def unbounded(self) -> bool:
        return self.low is None and self.high is None and not self.never

    def above(self, key: Key, *, included: bool = True) -> None:
        if key == _ZERO and included:  # npm takes `>=0.0.0` for `*`
            return
        self._ask(key)
        if self.low is None or (key, not included) > (self.low, not self.low_in):
            self.low, self.low_in = key, included

    def below(self, key: Key, *, included: bool = False) -> None:
        self._ask(key)
        if self.high is None or (key, included) < (self.high, self.high_in):
            self.high, self.high_in = key, included

    def holds(self, key: Key) -> bool:
        low, high = self.low, self.high
        if self.never or (key[3] is False and key[:3] not in self.asked):
            return False
        if low is not None and (key < low or (key == low and not self.low_in)):
            return False
        return high is None or key < high or (key == high and self.high_in)

    def _ask(self, key: Key) -> None:
        if key[3] is False:
            self.asked.add(key[:3])


_PARTIAL = (
    r"[v=\s]*(?:(?P<{0}major>{n})(?:\.(?P<{0}minor>{n})(?:\.(?P<{0}patch>{n})(?:-(?P<{0}pre>{p}))?(?:\+{b})?)?)?)"
)
_PARTS = {
    "n": r"0|[1-9][0-9]*|[xX*]",
    "p": r"(?:{i})(?:\.(?:{i}))*".format(i=r"[0-9]*[a-zA-Z-][0-9A-Za-z-]*|0|[1-9][0-9]*"),
    "b": r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*",
}
_HYPHEN = re.compile(
    r"\s*" + _PARTIAL.format("low_", **_PARTS) + r"\s+-\s+" + _PARTIAL.format("high_", **_PARTS) + r"\s*"
)
_SIMPLE = re.compile(r"\s*(?P<op>\^|~>?|[<>]=?|)\s*" + _PARTIAL.format("", **_PARTS) + r"(?=\s|$)\s*")
_PIN = re.compile(r"[v=\s]*(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}(?:-[0-9A-Za-z.-]+)?")
_ZERO: Key = (0, 0, 0, True)


def _alternative(part: str, text: str) -> _Interval:
    found = _Interval()
    hyphen = _HYPHEN.fullmatch(part)
    if hyphen:
        numbers, pre = _read(hyphen, "low_", text)
        if numbers:
            found.above(_lowest(numbers, pre))
        numbers, pre = _read(hyphen, "high_", text)
        _up_to(found, numbers, pre)
        return found
    position = 0
    while part[position:].strip():
        simple = _SIMPLE.match(part, position)
        if simple is None:
            raise BadInput(_no_range(text))
        _narrow(
            found, simple["op"].removesuffix(">") if simple["op"] == "~>" else simple["op"], *_read(simple, "", text)
        )
        position = simple.end()
    return found


def _read(match: re.Match[str], prefix: str, text: str) -> tuple[list[int], str | None]:
    """The numbers that are given, and the pre-release."""
    given = [match[f"{prefix}{name}"] for name in ("major", "minor", "patch")]
    wild = [part is None or part in "xX*" for part in given]
    numbers = [int(part) for part, is_wild in zip(given, wild, strict=True) if not is_wild]
    if sorted(wild) != wild:  # 1.x.3
        raise BadInput(_no_range(text))
    return numbers, match[f"{prefix}pre"] if len(numbers) == 3 else None


def _narrow(found: _Interval, op: str, numbers: list[int], pre: str | None) -> None:
    """One condition more. As npm's: `>1.2` means above all of 1.2, `<=1.2` up to all of it."""
    if not numbers:
        found.never = found.never or op in {"<", ">"}
        return
    last = len(numbers) - 1
    if op in {"^", "~", ""} and (op or last < 2):
        first = next((i for i, number in enumerate(numbers) if number), last)
        place = {"^": first, "~": min(1, last), "": last}[op]
        found.above(_lowest(numbers, pre))
        found.below(_below(_raised(numbers, place)))
    elif op == "":
        found.above(_lowest(numbers, pre))
        found.below(_lowest(numbers, pre), included=True)
    elif op == ">=":
        found.above(_lowest(numbers, pre))
    elif op == "<=":
        _up_to(found, numbers, pre)
    elif op == ">":
        found.above(_lowest(numbers, pre), included=False) if last == 2 else found.above(
            (*_raised(numbers, last), True)
        )
    else:
        found.below(_lowest(numbers, pre) if last == 2 else _below([*numbers, 0, 0][:3]))


def _up_to(found: _Interval, numbers: list[int], pre: str | None) -> None:
    """Itself, and all that a partial version stands for."""
    if len(numbers) == 3:
        found.below(_lowest(numbers, pre), included=True)
    elif numbers:
        found.below(_below(_raised(numbers, len(numbers) - 1)))


def _lowest(numbers: list[int], pre: str | None) -> Key:
    return (*[*numbers, 0, 0][:3], *_prerelease_key(pre))


def _below(numbers: list[int]) -> Key:
    """`-0`, the lowest pre-release: an upper bound that keeps out pre-releases of what it excludes."""
    return (*numbers, *_prerelease_key("0"))


def _raised(numbers: list[int], place: int) -> list[int]:
    """The number at `place` one higher, and zeros after it."""
    return [*numbers[:place], numbers[place] + 1, 0, 0][:3]


def _no_range(text: object) -> str:
    return f"not a range of versions: {text!r}; write it like '^1.2', '~1.4', '1.x', '>=1 <2' or '1.2.3'"


def _prerelease_key(text: str | None) -> Key:
    """Stable versions come after all of their pre-releases; numbers in these before words, numerically; more after
    fewer.
    """
    if text is None:
        return (True,)
    parts = text.split(".")
    return (False, tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts))
