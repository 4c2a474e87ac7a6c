"""Rows read back as entries: what usage is counted from, and what a policy that is not in force yet is tried on."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from json import loads
from pathlib import Path
from typing import Any

from escalade.errors import BadInput, DataError
from escalade.registry.audit import reading
from escalade.registry.audit.rows import DENIED, INTENT, OUTCOME, Row
from escalade.registry.stores.addresses import shown
from escalade.scopes import Entry, Principal

DECISIONS = (INTENT, DENIED)
"""Events that say what the guard decided: each use has one of the two."""

_Said = tuple[str, str, dict[str, Any]]


def ended(record: str | os.PathLike[str]) -> Iterator[Entry]:
    """Uses that ended, and refusals, oldest first. `record`: the log, or what `escalade audit export` made of it
    (.jsonl). Raises BadInput for what is neither, DataError for a log that can't be read.
    """
    return _entries(record, _all(record, (OUTCOME, DENIED)))


def decisions(record: str | os.PathLike[str], last: int | None = None) -> list[Entry]:
    """The `last` decisions (None: all), oldest first, as `access.simulate.replay` takes them.

    Names in which personal data was found are aliases, and of arguments there are digests: what depends on arguments
    can't be decided again. Raises as `ended`.
    """
    if last is not None and last < 1:
        raise BadInput(f"expected 1 decision or more, got {last}")
    if last is None or Path(record).suffix == ".jsonl":
        return list(_entries(record, deque(_all(record, DECISIONS), maxlen=last)))
    return list(_entries(record, _read(record, reading.tail(record, last, DECISIONS))))


def _entries(record: str | os.PathLike[str], said: Iterable[_Said]) -> Iterator[Entry]:
    for event, call, body in said:
        try:
            yield _entry(event, call, body)
        except (ValueError, TypeError) as error:
            raise DataError(f"{shown(record)}: the row of call {call!r} is not one that a log has: {error}") from None


def _entry(event: str, call: str, said: dict[str, Any]) -> Entry:
    who = Principal(said.get("user", "nobody"), said.get("tenant", "default"), frozenset(said.get("roles", ())))
    behalf = tuple(Principal(user, tenant, frozenset(roles)) for tenant, user, roles in said.get("behalf", ()))
    return Entry(
        call_id=call,
        run_id=said.get("run", ""),
        principal=who,
        resource=said.get("resource", ""),
        version=said.get("version", ""),
        kind=said.get("kind", ""),
        rule=said.get("rule", ""),
        held=int(said.get("held", 0)),
        cost=int(said.get("cost", 0)),
        started=said.get("started_us", 0) / 1e6,
        seconds=said.get("took_us", 0) / 1e6,
        outcome="" if event == INTENT else said.get("outcome", event),
        error=said.get("error", ""),
        priced=bool(said.get("priced", True)),
        side_effects=said.get("side_effects", ""),
        permission=said.get("permission", ""),
        schema_digest=said.get("schema", ""),
        args_digest=said.get("args", ""),
        result_digest=said.get("result", ""),
        policy_digest=said.get("policy", ""),
        approval_id=said.get("approval", ""),
        redactions=said.get("redactions", {}),
        principals=(*behalf, who),
        unchecked=said.get("unchecked", ""),
        source=said.get("source", ""),
        invalid=tuple(said.get("invalid", ())),
    )


def _all(record: str | os.PathLike[str], events: tuple[str, ...]) -> Iterator[_Said]:
    said = _exported(Path(record)) if Path(record).suffix == ".jsonl" else _read(record, reading.rows(record))
    return (one for one in said if one[0] in events)


def _read(record: str | os.PathLike[str], rows: Iterable[Row]) -> Iterator[_Said]:
    for row in rows:
        try:
            yield row.event, row.call, row.fields()
        except ValueError:
            raise DataError(f"{shown(record)}: row {row.seq} can't be read: it was tampered with") from None


def _exported(record: Path) -> Iterator[_Said]:
    try:
        lines = record.read_text("utf-8").splitlines()
    except OSError as error:
        raise BadInput(f"{record}: can't be read ({error.strerror or error})") from None
    for number, line in enumerate(lines, 1):
        try:
            row = loads(line)
            yield row["event"], row.get("call", ""), dict(row["body"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadInput(f"{record}:{number}: is no row of an audit log") from None
