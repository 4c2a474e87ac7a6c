"""The cache of responses: what is kept, for whom, how long, and what that is worth."""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from escalade import events
from escalade.agents._allowed import check_allowed
from escalade.agents.cache._key import key_of, place_of, tag_of, whose, word
from escalade.agents.cache._record import Record, flaw
from escalade.agents.cache._shelf import AnswerStore, Memory, Shelf
from escalade.agents.cache._variants import family_of
from escalade.agents.cache.kinds import Classifier, Kinds, is_off, kind_of, question_of
from escalade.agents.cache.parsing import Outputs, watch
from escalade.agents.cache.usage import CacheStats, Counters
from escalade.clock import now as wall_clock
from escalade.errors import BadInput
from escalade.registry.idempotency import Flights
from escalade.registry.stores.disk_cache import DiskCache
from escalade.scopes import Scope, current

if TYPE_CHECKING:
    from dspy.clients.call_result import CallResult
    from dspy.clients.execution import PreparedCall

    from escalade.agents.cache.similar import SimilarityCache
    from escalade.agents.gateway import Gateway
    from escalade.agents.models import Model

MEBIBYTE = 1024 * 1024
STANDIN = 300.0
"""Seconds for which a fallback's answer is kept at most: the model that was asked may be back by then."""

_SPOILED = 1_000
"""How many answers that could not be parsed are remembered, until the store has forgotten them."""

Joins = Literal["deterministic", "all", "none"]


class Asked(NamedTuple):
    """One call, as the cache sees it."""

    key: str
    tag: str
    kind: str
    question: str
    scope: Scope
    gateway: Gateway
    model: Model
    joins: bool
    kept: bool = True
    family: str | None = None


class Found(NamedTuple):
    """An answer that is there, where it was (memory, store, joined, similar), and its key, if it isn't the call's."""

    record: Record
    level: str
    key: str = ""


class ResponseCache:
    """Responses of models, under the guard: `Gateway(models, cache=ResponseCache("answers"))`.

    `path`: a folder on a local disk, which processes of one host share; None keeps them in memory. `store`: instead of
    a folder, such as `RedisCache(url)`. `ttl`: seconds by kind of question, or for all; see `kinds.py`. `classify`:
    says the kind. `per`: whether each user of a tenant has his own. `size_limit`: bytes on disk; `memory`: bytes in
    this process. `joins`: which equal calls that run at once are one call: those of temperature 0, all, none.
    `similar`: also answers questions that differ a little, see `similar/`. `now`: seconds since the epoch. Raises
    BadInput.

    Who has no scope has no cache. A hit costs nothing, uses no rate limit, and passes the guard all the same: who may
    not use the model (now) is refused. Truncated, refused, empty and unparsable answers are not kept.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        store: AnswerStore | None = None,
        ttl: Mapping[str, float] | float | None = None,
        classify: Classifier = kind_of,
        per: Literal["tenant", "user"] = "tenant",
        size_limit: int = 256 * MEBIBYTE,
        memory: int = 64 * MEBIBYTE,
        joins: Joins = "deterministic",
        similar: SimilarityCache | None = None,
        now: Callable[[], float] = wall_clock,
    ) -> None:
        _check(path, store, per, memory, joins)
        self.kinds, self.per, self.joins, self.now = Kinds(ttl, classify), per, joins, now
        self.counters, self.flights = Counters(), Flights(optional=True)
        self.similar = similar
        store = DiskCache(path, size_limit=size_limit) if path is not None else store
        self.shelf = Shelf(Memory(memory, now), store, self.counters.failed)
        self._spoiled: OrderedDict[str, str] = OrderedDict()
        watch()

    def __deepcopy__(self, memo: dict[int, Any]) -> ResponseCache:
        return self  # copies of a program share it

    def kind(self, name: str) -> contextlib.AbstractContextManager[None]:
        """`with cache.kind("code"):` questions in this block are of this kind. Raises UnknownName."""
        return self.kinds.said(name)

    def evict(
        self, *, tenant: str | None = None, user: str | None = None, model: str | None = None, kind: str | None = None
    ) -> None:
        """Forget all answers of a tenant, of a model (its alias), of a kind; several: each of them. `user`: of that
        tenant, his alone, where each has his own (`per="user"`).

        Other processes on the same store forget within a minute. Raises BadInput; StoreUnavailable when they may still
        be there.
        """
        if user is not None and (tenant is None or self.per != "user"):
            raise BadInput('evict: a user has answers of his own with per="user" only, and is named with his tenant')
        who = ("tenant", tenant) if user is None else ("user", f"{tenant}/{user}")
        named = [(what, name) for what, name in (who, ("model", model), ("kind", kind)) if name is not None]
        if not named:
            raise BadInput("evict: expected a tenant, a model or a kind; `clear()` forgets everything")
        for what, name in named:
            self._forget(word(what, name))

    def clear(self) -> None:
        """Forget everything. Raises StoreUnavailable when it may still be there."""
        self._forget(None)

    def _forget(self, tag: str | None) -> None:
        if self.similar is not None:
            self.similar.clear()
        self.shelf.forget(tag)

    def stats(self) -> CacheStats:
        """Hits, misses, dollars saved, by tenant and model, since the cache was made."""
        memory, counters = self.shelf.memory, self.counters
        return CacheStats(counters.usage(), memory.evicted, counters.failures, len(memory), memory.bytes)

    # -- one call

    def asked(self, gateway: Gateway, model: Model, call: PreparedCall) -> Asked | None:
        """What is looked up; None for a call that no answer is kept for. Raises UnknownName for an unknown kind."""
        scope = current()
        if scope is None or call.cache is False or not scope.principals or is_off():
            return None
        question = question_of(call)
        kind = self.kinds.of(question)
        owners, place = whose(scope, self.per), place_of(gateway.name, model)
        told = call.key(_PLAIN_CHAT, asynchronous=False)
        key = key_of(owners, place, told)
        kept, joins = self.kinds.seconds[kind] > 0, self._joins(call)
        if key is None or not (kept or joins):
            self.counters.refused(scope.principal.tenant, model.name, "never" if key else "not exact")
            return None
        tag = tag_of(owners, model.name, kind)
        family = family_of(owners, place, call, told) if kept and self.similar is not None else None
        return Asked(key, tag, kind, question, scope, gateway, model, joins, kept, family)

    def near(self, asked: Asked) -> Found | None:
        """An answer in memory."""
        return self.read(asked, self.shelf.near(asked.key), "memory")

    def far(self, asked: Asked) -> Found | None:
        """An answer in the store. Blocks."""
        if self.shelf.store is None or not asked.kept:
            return None
        return self.read(asked, self.shelf.far(asked.key, self.kinds.seconds[asked.kind], asked.tag), "store")

    def read(self, asked: Asked, text: bytes | None, level: str) -> Found | None:
        """The answer, if it is one of ours, good for this kind of question, and by models that may be used here."""
        if text is None:
            return None
        try:
            record = Record.loaded(text)
        except ValueError as error:
            self.shelf.note(error)
            if level == "store":
                self.shelf.drop(asked.key)
            return None
        if self._spoiled and self._spoiled.get(asked.key) == record.id:
            return None
        return Found(record, level) if self._good(asked, record, new=level == "joined") else None

    def hit(self, asked: Asked, found: Found) -> CallResult:
        """The answer, counted and told; it has passed the guard."""
        record, scope, model = found.record, asked.scope, asked.model.name
        self.counters.hit(scope.principal.tenant, model, found.level, record.cost)
        if scope.listeners:
            age = max(0.0, self.now() - record.at)
            events.emit(
                scope, events.CacheHit, model=model, kind=asked.kind, level=found.level, saved=record.cost, age=age
            )
        if found.level != "similar":
            self._learn(asked)
        return self._remembering(asked._replace(key=found.key or asked.key), record, record.result())

    def stand_in(self, asked: Asked, key: str, text: bytes | None) -> Found | None:
        """The answer to a similar question, if it is still there and good."""
        found = self.read(asked._replace(key=key), text, "similar")
        if found is None and self.similar is not None:
            self.similar.forget(key)
        return None if found is None else found._replace(key=key)

    def made(self, asked: Asked, result: CallResult) -> tuple[CallResult, bytes | None, float]:
        """What a call brought: to hand out, to share with those who wait, and for how many seconds to keep (0: not)."""
        record = Record.of(result, asked.kind, self.now(), asked.model)
        text, why = record.dumped(), flaw(result) or ("" if all(record.by) else "unknown")
        tenant, model = asked.scope.principal.tenant, asked.model.name
        self.counters.miss(tenant, model)
        if text is None or why:
            self.counters.refused(tenant, model, why or "not exact")
            return result, text, 0.0
        seconds = self.seconds(asked.kind, record, asked.model)
        if seconds <= 0:
            self.counters.refused(tenant, model, "never")
            return result, text, 0.0
        self.shelf.memory.set(asked.key, text, seconds, asked.tag)
        self.counters.kept(tenant, model)
        self._learn(asked)
        return self._remembering(asked, record, result), text, seconds

    def seconds(self, kind: str, record: Record, model: Model) -> float:
        """For how long it may be used."""
        ttl = min(self.kinds.seconds[kind], self.kinds.seconds.get(record.kind, 0.0))
        return ttl if set(record.by) <= {model.name} else min(ttl, STANDIN)

    def _learn(self, asked: Asked) -> None:
        if self.similar is not None and asked.family is not None:
            self.similar.learn(asked.family, asked.question, asked.key)

    def _good(self, asked: Asked, record: Record, *, new: bool) -> bool:
        if not new and not self.now() - record.at < self.seconds(asked.kind, record, asked.model):
            return False
        others = set(record.by) - {asked.model.name}
        return all(name in asked.gateway.models and asked.gateway.allows(name, asked.scope) for name in others)

    def _remembering(self, asked: Asked, record: Record, result: CallResult) -> CallResult:
        result.outputs = Outputs(result.outputs, partial(self._take_back, asked, record.id))
        return result

    def _take_back(self, asked: Asked, record_id: str) -> None:
        """It could not be parsed. A better one that came meanwhile stays. Does not wait for the store."""
        self.counters.refused(asked.scope.principal.tenant, asked.model.name, "unparsable")
        self._spoiled[asked.key] = record_id
        if len(self._spoiled) > _SPOILED:
            with contextlib.suppress(KeyError):  # another thread was faster
                self._spoiled.popitem(last=False)
        text = self.shelf.near(asked.key)
        if text is None or f'"{record_id}"'.encode() in text:
            self.shelf.drop_later(asked.key)

    def _joins(self, call: PreparedCall) -> bool:
        if self.joins != "deterministic":
            return self.joins == "all"
        if call.request is not None:
            return bool(call.request.config.temperature == 0)
        return bool(call.legacy.get("temperature") == 0)


class _PlainChat:
    """What DSPy's key reads of an LM, the same for all kinds of LM."""

    model_type = "chat"


_PLAIN_CHAT = _PlainChat()


def check_use(asked: Asked) -> None:
    """What is asked of a model beyond the policy. Raises PermissionDenied."""
    check_allowed(asked.model, asked.scope, asked.gateway.regions)


def _check(path: Any, store: Any, per: Any, memory: Any, joins: Any) -> None:
    if path is not None and store is not None:
        raise BadInput("a cache of responses has a path or a store, not both")
    if per not in {"tenant", "user"} or joins not in {"deterministic", "all", "none"}:
        raise BadInput(
            f"expected per='tenant' or 'user' and joins='deterministic', 'all' or 'none', got {per!r}, {joins!r}"
        )
    if not isinstance(memory, int) or isinstance(memory, bool) or memory < 0:
        raise BadInput(f"memory: expected bytes, 0 or more, got {memory!r}")
