"""One call of a tool on its way: what it may cost, whether an answer is there without running it, and what to keep.

An answer that is there already (from a cassette, a cache, or an earlier call of a tool that is used `once`) is given
under the guard all the same: roles and arguments are checked and the call is recorded, with its source and no cost.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from functools import cached_property, partial
from typing import Any, TypeVar

from pydantic_core import to_jsonable_python

from escalade.errors import (
    DeadlineExceeded,
    InvalidArguments,
    ModeForbids,
    OutcomeUnknown,
    Refused,
    StoreUnavailable,
    ToolTimeout,
)
from escalade.registry.admission import Admission, fingerprint
from escalade.registry.cache import Cache, Forgiving, cache_key
from escalade.registry.canonical import digest
from escalade.registry.elsewhere import elsewhere, is_remote
from escalade.registry.exact import exact
from escalade.registry.idempotency import Flight, Flights, InFlight, Lead, call_key, copied, flights_of
from escalade.registry.joining import boarded, making
from escalade.registry.journaling import journal_key
from escalade.registry.messages import NEVER_RAN
from escalade.registry.metering import Tab, ceiling_of, metered
from escalade.registry.modes import Cassette, Player, again, failure
from escalade.registry.results import Results
from escalade.registry.stores.claims import Claims
from escalade.registry.tools import NOTHING_DRY, ToolDefinition
from escalade.scopes import Entry, RunJournal, Scope

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=BaseException)

_HARMLESS = frozenset({"none", "read"})
_NO_RUN = frozenset({"replay", "dry-run"})


class Manner:
    """How the calls of one version of a tool are handled: what they share. `failed`: told when the cache fails."""

    def __init__(
        self,
        definition: ToolDefinition,
        cache: Cache,
        claims: Claims | None = None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self.definition, self.spec, self.claims = definition, definition.spec, claims
        self.cache, self.misses = Forgiving(cache, failed), Flights(optional=True)
        self.defaults = {
            name: parameter.default
            for name, parameter in definition.inputs.signature.parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }

    @cached_property
    def results(self) -> Results:
        return Results(self.definition.inputs.output)

    @cached_property
    def plain(self) -> bool:
        """Is there nothing to it in a live scope?"""
        spec = self.spec
        return not (spec.once or spec.cache or spec.metered or self.definition.cost_of)


class Call:
    """One call. `values`: its arguments, once they were accepted. `source`: where its answer came from, "" if the tool
    runs. `loop`: the event loop that awaits it. `joined`: the call of somebody else that it has waited for.
    """

    def __init__(
        self, manner: Manner, loop: asyncio.AbstractEventLoop | None = None, joined: Flight | None = None
    ) -> None:
        self._manner, self._loop, self._joined = manner, loop, joined
        self.values: dict[str, Any] = {}
        self.source = ""
        self._answer: Callable[[], Any] = lambda: None
        self._lead: Lead | None = None
        self._cached = ""
        self._claimed = False
        self._tab: Tab | None = None
        self._result: Any = None
        self._journal: RunJournal | None = None
        self._journaled = ""

    def most(self) -> int | None:
        """Nano-dollars that it may cost, None for unknown."""
        spec, cost_of = self._manner.spec, self._manner.definition.cost_of
        if cost_of is not None:
            return ceiling_of(spec.label, cost_of, self.values, spec.max_cost)
        return None if spec.most is None else int(spec.most)

    def shortcut(self, scope: Scope, entry: Entry) -> str:
        """Where the answer comes from, "" when the tool has to run.

        Raises ModeForbids, NotRecorded, OutcomeUnknown, InFlight.
        """
        if scope.mode == "live" and self._manner.plain and scope.journal is None:
            return ""
        self.source = self._by_mode(scope) or self._finished(scope) or self._known(scope, entry)
        return self.source

    def refused(self, error: E) -> E:
        """What came before it, which says that nothing ran."""
        self.abandon()
        error.__dict__[NEVER_RAN] = True
        return error

    def abandon(self) -> None:
        """Nothing runs after all."""
        lead, self._lead = self._lead, None
        if lead is not None:
            if self._claimed:
                self._claim_ended(lambda claims: claims.drop(lead.key))
            lead.ended(lambda key: lead.flights.crash(key, None))

    def answer(self) -> Any:
        """The answer that was there. Raises ToolError for a recorded failure."""
        self._result = self._answer()
        return self._result

    @contextmanager
    def running(self, admission: Admission) -> Iterator[None]:
        """Around its execution, within the admission: charges, and what is kept of how it ends."""
        self._begun(admission)
        try:
            with metered(self._tab), self._making():
                yield
        except BaseException as error:
            self._ended(admission, error)
            raise
        self._ended(admission, None)
        if self._journal is not None and not self.source:
            self._journal.saved()

    @asynccontextmanager
    async def arunning(self, admission: Admission) -> AsyncIterator[None]:
        """`running`, without blocking the event loop where a store is told how it ended."""
        journal = None if self.source else self._journal
        shared = self._claimed or (self._cached != "" and not self.source and is_remote(self._manner.cache.cache))
        noted = journal is not None and not self._manner.spec.repeatable
        if not shared and journal is None:
            with self.running(admission):
                yield
            return
        await _told(partial(self._begun, admission), blocks=noted)
        try:
            with metered(self._tab), self._making():
                yield
        except BaseException as error:
            await _told(partial(self._ended, admission, error), blocks=shared or noted)
            raise
        await _told(partial(self._ended, admission, None), blocks=shared)
        if journal is not None:
            await journal.asaved()

    def _making(self) -> AbstractContextManager[None]:
        return nullcontext() if self._lead is None else making(self._lead.key)

    def done(self, result: Any) -> Any:
        """It worked; the result again."""
        self._result = result
        return result

    # -- before

    def _by_mode(self, scope: Scope) -> str:
        spec, mode = self._manner.spec, scope.mode
        if mode == "live-read-only" and spec.side_effects not in _HARMLESS:
            raise ModeForbids(f"{spec.label} has side effects ({spec.side_effects}), and this scope only reads")
        if mode == "dry-run":
            dry = self._manner.definition.dry
            if dry is NOTHING_DRY:
                raise ModeForbids(f"{spec.label} was not declared with dry=..., so it has no answer in a dry run")
            self._answer = (lambda: dry(**self.values)) if callable(dry) else (lambda: copied(dry))
            return mode
        if mode == "replay":
            assert isinstance(scope.cassette, Player)  # noqa: S101 - checked when the scope was opened
            recorded = scope.cassette.answer(spec.label, self._args)
            self._answer = lambda: self._replayed(recorded)
            return mode
        return ""

    def _replayed(self, recorded: Mapping[str, Any]) -> Any:
        if "error" in recorded:
            raise again(recorded["error"])
        return self._manner.results.read(recorded["result"])

    def _finished(self, scope: Scope) -> str:
        """What a durable run has finished is not done again, whatever it is."""
        journal = scope.journal
        if journal is None:
            return ""
        spec, whose = self._manner.spec, [[one.tenant, one.user] for one in scope.principals]
        try:
            self._journaled = journal_key("tool", spec.label, digest(whose), self._args)
        except InvalidArguments as error:
            logger.warning("a call can't be kept, and is made again on resume: %s", error)
            return ""
        self._journal = journal
        try:
            kept = journal.find(self._journaled)
        except OutcomeUnknown:
            if spec.repeatable:
                return ""
            raise
        return "journal" if kept is not None and self._loaded(kept) else ""

    def _known(self, scope: Scope, entry: Entry) -> str:
        spec, manner = self._manner.spec, self._manner
        if spec.cache and entry.policy_digest:
            try:
                self._cached = cache_key(spec.label, scope, entry.rule, self._args, spec.cache_per)
            except InvalidArguments:
                return ""
            return self._from_cache(self._cached)
        flights = flights_of(scope) if spec.once else None
        if flights is not None:
            key = call_key(spec.label, scope, self._args)
            found = boarded(flights, key, self._loop, spec.label)
            if isinstance(found, Flight):
                self._answer = lambda: copied(found.landed.result())
                return "once"
            self._lead = lead = found
            return "" if manner.claims is None or lead is None else self._claim(manner.claims, lead)
        return ""

    def _from_cache(self, key: str) -> str:
        """Of several that miss at once, one makes the call; the others wait for what it puts into the cache."""
        if self._kept_before(key):
            return "cache"
        joined = self._joined
        if joined is not None and joined.key == key and not joined.landed.cancelled():
            kept = joined.landed.result() if joined.landed.done() else None
            return "cache" if kept is not None and self._loaded(kept) else ""  # what can't be shared, each one makes
        found = boarded(self._manner.misses, key, self._loop, self._manner.spec.label)
        if not isinstance(found, Lead):
            return ""
        self._lead = found
        if self._kept_before(key):  # by one that ended between the two looks
            self.abandon()
            return "cache"
        return ""

    def _kept_before(self, key: str) -> bool:
        kept = self._manner.cache.get(key)
        return kept is not None and self._loaded(kept)

    def _loaded(self, kept: bytes) -> bool:
        try:
            result = self._manner.results.load(kept)
        except ValueError as error:
            self._manner.cache.note(error)
            return False
        self._answer = lambda: result
        return True

    def _claim(self, claims: Claims, lead: Lead) -> str:
        """The same among processes."""
        state, kept = claims.claim(lead.key, again=self._manner.spec.repeatable)
        self._claimed = state == "mine"
        if self._claimed:
            return ""
        if state == "running":
            raise InFlight(None)
        if state == "unknown" or kept is None:
            raise OutcomeUnknown("this call was made before, and what came of it is not known; look before you go on")
        result = self._manner.results.load(kept)
        lead.ended(lambda key: lead.flights.land(key, result))
        self._lead = None
        self._answer = lambda: result
        return "once"

    def _claim_ended(self, end: Callable[[Claims], None]) -> None:
        claims = self._manner.claims
        try:
            if claims is not None:
                end(claims)
        except StoreUnavailable as error:  # it stays claimed: others wait, and it is unknown when we are gone
            logger.warning("how a call of %s ended could not be shared: %s", self._manner.spec.label, error)

    @cached_property
    def _args(self) -> str:
        """What the call is known by: the digest of its arguments. Raises InvalidArguments when they have no exact text,
        so that it might be taken for another call.
        """
        try:
            return exact(self._given).digest
        except ValueError as error:
            raise InvalidArguments(f"{self._manner.spec.label}: no exact text of these arguments: {error}") from None

    @property
    def _given(self) -> dict[str, Any]:
        """All arguments, those too that were left at their defaults."""
        return {**self._manner.defaults, **self.values}

    # -- after

    def _begun(self, admission: Admission) -> None:
        if self._lead is not None:
            self._lead.begun = not (self._cached or self._manner.spec.repeatable)
        if self._manner.spec.metered and not self.source:
            self._tab = Tab(self._manner.spec.label, admission.held if admission.entry.priced else None)
        if self._journal is not None and not self.source and not self._manner.spec.repeatable:
            self._journal.begin(self._journaled, "tool", self._manner.spec.label)

    def _ended(self, admission: Admission, error: BaseException | None) -> None:
        if error is None:
            admission.entry.result_digest = fingerprint(admission.scope, self._result)
        if self.source:
            if error is None and self.source not in _NO_RUN:  # who replays it won't have our caches
                self._record(admission.scope, None)
            return
        cut_off = isinstance(error, ToolTimeout | DeadlineExceeded) or not isinstance(error, Exception | None)
        if self._tab is not None:
            charged = self._tab.close()
            if not cut_off:  # otherwise it may go on spending, and its whole reservation counts
                admission.cost = charged
        if self._journal is not None:
            self._note(self._journal, admission, error, cut_off=cut_off)
        if self._cached and error is None and self._dumped is not None:
            spec = self._manner.spec
            self._manner.cache.set(self._cached, self._dumped, spec.cache or 0.0, spec.name)
        if self._lead is not None:
            self._land(self._lead, error, cut_off=cut_off)
        if not cut_off or isinstance(error, ToolTimeout):
            self._record(admission.scope, error)

    def _note(self, journal: RunJournal, admission: Admission, error: BaseException | None, *, cut_off: bool) -> None:
        """Tell the journal of a durable run how it ended. What was cut off stays as begun: nobody knows."""
        label = self._manner.spec.label
        if error is None:
            cost = admission.held if admission.cost is None else admission.cost
            journal.note(self._journaled, "tool", label, self._dumped, cost)
        elif not cut_off:
            journal.drop(self._journaled)

    @cached_property
    def _dumped(self) -> bytes | None:
        """The result as JSON, None for one that isn't."""
        return self._manner.results.dump(self._result)

    def _land(self, lead: Lead, error: BaseException | None, *, cut_off: bool) -> None:
        flights = lead.flights
        if self._cached:
            if error is None:
                lead.ended(lambda key: flights.deliver(key, self._dumped))
            else:
                mine = not isinstance(error, Exception) or isinstance(error, Refused)
                lead.ended(lambda key: flights.crash(key, None if mine else error))
            return
        lost = cut_off and not self._manner.spec.repeatable
        if self._claimed:  # first, so that no other process makes it meanwhile
            if error is None:
                self._claim_ended(lambda claims: claims.done(lead.key, self._dumped))
            else:
                self._claim_ended(lambda claims: (claims.lose if lost else claims.drop)(lead.key))
        if error is None:
            lead.ended(lambda key: flights.land(key, self._result))
        elif lost:
            lead.ended(flights.lose)
        else:
            lead.ended(lambda key: flights.crash(key, error))

    def _record(self, scope: Scope, error: BaseException | None) -> None:
        if scope.mode != "record" or not isinstance(scope.cassette, Cassette):
            return
        label, results = self._manner.spec.label, self._manner.results
        if error is not None:
            if not isinstance(error, Exception) or isinstance(error, Refused):
                return
            answer = failure(error)
        elif self._dumped is not None:
            answer = {"result": results.plain(self._dumped)}
        else:
            logger.warning("a call of %s could not be recorded: its result isn't JSON", label)
            return
        try:
            scope.cassette.record(label, self._args, to_jsonable_python(self._given), answer)
        except (OSError, ValueError, InvalidArguments) as failed:  # it was made, and whoever made it has its answer
            why = failed.strerror if isinstance(failed, OSError) else failed
            logger.warning("a call of %s could not be recorded: %s", label, why)


async def _told(tell: Callable[[], None], *, blocks: bool) -> None:
    if blocks:
        await elsewhere(tell)
    else:
        tell()
