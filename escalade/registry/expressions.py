"""Regular expressions of linear time: whatever the expression and the text, an answer comes at once.

Python's own engine backtracks: `(a+)+$` takes minutes on thirty letters, and holds up all threads meanwhile. This one
(of Rust, by way of `jsonschema_rs`) knows no look-around and no back-references.
"""

from __future__ import annotations

from collections.abc import Callable

from escalade.errors import BadInput

__all__ = ["finder", "matcher"]

Test = Callable[[str], bool]


def matcher(pattern: str, where: str) -> Test:
    """Does the *whole* text match? Raises BadInput, which begins with `where`."""
    _compiled(pattern, pattern, where)  # alone: "a)|(b" is none
    return _compiled(f"^(?:{pattern})$", pattern, where)


def finder(pattern: str, where: str, *, any_case: bool = False) -> Test:
    """Is it found anywhere in the text? Raises BadInput, which begins with `where`."""
    found = _compiled(pattern, pattern, where)
    return _compiled(f"(?i:{pattern})", pattern, where) if any_case else found


def _compiled(written: str, pattern: str, where: str) -> Test:
    import jsonschema_rs

    try:
        found = jsonschema_rs.Draft202012Validator({"pattern": written}, pattern_options=jsonschema_rs.RegexOptions())
    except (ValueError, TypeError):
        raise BadInput(f"{where}: {pattern!r} is not a regular expression of linear time") from None
    test: Test = found.is_valid
    return test
