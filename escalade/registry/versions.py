"""Versions of tools: semantic versions, and ranges as npm writes them.

    ^1.2      1.2 or newer, below 2          ~1.4      1.4 or newer, below 1.5
    1.x       any 1                          >=1 <2    both conditions
    1.2.3     exactly that                   1 || 3    either
    None      the newest stable one

Pre-releases (`2.0.0-rc.1`) are found only by who asks for them: by a range that names a pre-release of the same
major.minor.patch. Build metadata (`1.0.0+abc`) is refused: it has no place in the order, so that two builds could not
be told apart by any range. Rules: https://semver.org, https://github.com/npm/node-semver#ranges.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

from escalade.errors import BadInput


@functools.cache
def parse_version(text: str) -> tuple[object, ...]:
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


@functools.lru_cache(maxsize=4096)
def matcher(text: str) -> Callable[[str], bool]:
    """A test for versions, compiled from a range once. Raises BadInput when it isn't one."""
    import nodesemver

    try:
        compiled = nodesemver.make_range(text, loose=False)
    except (ValueError, TypeError, AttributeError, IndexError):
        raise BadInput(
            f"not a range of versions: {text!r}; write it like '^1.2', '~1.4', '1.x', '>=1 <2' or '1.2.3'"
        ) from None

    def matches(version: str) -> bool:
        return bool(compiled.test(version))

    return matches


def newest(versions: Iterable[str], wanted: str | None = None) -> str | None:
    """The newest of `versions` in the range, the newest stable one for None; None when there is none. Raises
    BadInput.
    """
    matches = is_stable if wanted is None else matcher(wanted.strip())
    return max(filter(matches, versions), key=parse_version, default=None)


def _prerelease_key(text: str | None) -> tuple[object, ...]:
    """Stable versions come after all of their pre-releases; numbers in these before words, numerically; more after
    fewer.
    """
    if text is None:
        return (True,)
    parts = text.split(".")
    return (False, tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts))
