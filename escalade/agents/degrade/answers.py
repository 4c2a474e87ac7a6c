"""Answers of a program, kept for when it can't give any.

An answer is found by whoever may have it: its key is made of the program, the tenant (or user) and the roles of
everybody on whose behalf it was asked, the policy, and the inputs. It also knows what was used to make it, and is given
only to a caller who may use all of that now, whatever the arguments and without asking a person: nobody knows here
which ones were used, and one consent is no consent to the next answer. Without a policy that has a digest, nothing is
kept.

Values are JSON; what doesn't come back from JSON as it was is not kept, nor is an answer that was cut off, nor one that
was made with a tool that changes the world: "it is booked" is only true once.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from escalade.agents.degrade._barred import barred
from escalade.errors import BadInput
from escalade.registry.cache import Cache, Forgiving, MemoryCache
from escalade.registry.canonical import digest
from escalade.scopes import Entered, Scope

logger = logging.getLogger(__name__)

_FORMAT = "answer/2"

_HARMLESS = frozenset({"", "none", "read"})


class Similar(Protocol):
    """An index of questions, like `SimilarityCache`."""

    def find(self, family: str, question: str) -> str | None:
        """The key of a question that means the same."""
        ...

    def learn(self, family: str, question: str, key: str) -> None:
        """The answer to this question is kept under `key`."""
        ...


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer of before. `age`: seconds."""

    outputs: Mapping[str, Any]
    age: float


class Answers:
    """Where answers are kept, and for how long.

    `cache`: as for results of tools: in memory (the default), `DiskCache`, `RedisCache`; one that fails is a miss.
    `fresh`: seconds in which an answer is as good as a new one; 0 never. `stale`: seconds in which it is better than
    none. `per`: whose it is. `similar`: finds questions that mean the same, where only one input differs; off by
    default. `now`: wall clock. Raises BadInput.
    """

    def __init__(
        self,
        cache: Cache | None = None,
        *,
        fresh: float = 3_600.0,
        stale: float = 86_400.0,
        per: Literal["tenant", "user"] = "tenant",
        similar: Similar | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not 0 <= fresh <= stale or stale <= 0:
            raise BadInput(f"answers: expected seconds 0 <= fresh <= stale, got {fresh!r} and {stale!r}")
        if per not in {"tenant", "user"}:
            raise BadInput(f"answers are kept per 'tenant' or per 'user', not {per!r}")
        self.fresh, self.stale, self._per, self._similar, self._now = fresh, stale, per, similar, now
        self.failed = 0
        self._cache = Forgiving(MemoryCache() if cache is None else cache, self._count_failure)
        self.remote = bool(getattr(cache, "remote", False))

    def __deepcopy__(self, memo: dict[int, Any]) -> Answers:
        return self  # copies of a program share what is kept

    def get(self, program: str, inputs: Mapping[str, Any], scope: Scope) -> Kept | None:
        """The answer to these inputs that this scope may have, at most `stale` seconds old."""
        key = self._key(program, inputs, scope)
        return None if key is None else self._read(key, scope)

    def get_similar(self, program: str, inputs: Mapping[str, Any], scope: Scope) -> Kept | None:
        """The answer to nearly these inputs."""
        if self._similar is None or (placed := self._place(program, inputs, scope)) is None:
            return None
        try:
            with Entered(lambda: scope.narrow(name="similar", optional=True), check=False):
                key = self._similar.find(*placed)  # vectors may cost; what is refused for them costs no answer
        except Exception as error:  # noqa: BLE001 - an embedder of anybody's; it may be what is down
            self._cache.note(error)
            return None
        return None if key is None else self._read(key, scope)

    def keep(
        self,
        program: str,
        inputs: Mapping[str, Any],
        scope: Scope,
        outputs: Mapping[str, Any],
        used: Iterable[tuple[str, str, str]],
    ) -> None:
        """Keep an answer, if it can be. `used`: permission, effect and name of each resource that it was made with."""
        key, used = self._key(program, inputs, scope), tuple(used)
        if key is None or not all(effect in _HARMLESS for _, effect, _ in used):
            return
        said = {"at": self._now(), "outputs": dict(outputs), "used": sorted(map(list, used))}
        try:
            text = json.dumps(said, allow_nan=False)
        except (TypeError, ValueError):
            return
        if json.loads(text) != said:
            return
        self._cache.set(key, text.encode(), self.stale, program)
        if self._similar is not None and (placed := self._place(program, inputs, scope)) is not None:
            try:
                self._similar.learn(*placed, key)
            except Exception as error:  # noqa: BLE001 - as above
                self._cache.note(error)

    def _read(self, key: str, scope: Scope) -> Kept | None:
        text = self._cache.get(key)
        if text is None:
            return None
        try:
            said = json.loads(text)
            age, outputs = self._now() - said["at"], dict(said["outputs"])
            used = [(permission, effect, name) for permission, effect, name in said["used"]]
        except (ValueError, TypeError, KeyError) as error:  # none of ours
            self._cache.note(error)
            return None
        if age > self.stale or not all(_may_use(scope, *one) for one in used):
            return None
        return Kept(outputs, max(0.0, age))

    def _key(self, program: str, inputs: Mapping[str, Any], scope: Scope) -> str | None:
        owner = self._owner(program, scope)
        try:
            return None if owner is None else digest([_FORMAT, owner, dict(inputs)])
        except (TypeError, ValueError):  # inputs that are no JSON
            return None

    def _place(self, program: str, inputs: Mapping[str, Any], scope: Scope) -> tuple[str, str] | None:
        """Family and question: the one input that is text, among inputs that are otherwise the same."""
        texts = [name for name, value in inputs.items() if isinstance(value, str)]
        owner = self._owner(program, scope)
        if len(texts) != 1 or owner is None:
            return None
        others = {name: value for name, value in inputs.items() if name != texts[0]}
        try:
            return digest([_FORMAT, owner, texts, others]), inputs[texts[0]]
        except (TypeError, ValueError):
            return None

    def _owner(self, program: str, scope: Scope) -> list[Any] | None:
        policy = getattr(scope.access, "digest", "")
        if not policy or not scope.principals:
            return None
        whose = [[p.tenant, p.user if self._per == "user" else "", sorted(p.roles)] for p in scope.principals]
        return [program, policy, whose]

    def _count_failure(self) -> None:
        self.failed += 1


def _may_use(scope: Scope, permission: str, effect: str, name: str) -> bool:
    """By the policy; and a model by its own roles and regions, too."""
    decided = scope.permits(permission, effect)
    return decided.allowed and not decided.closer and not decided.approval and not barred(name, permission, scope)
