"""Budgets in Redis, for processes of many hosts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from escalade.errors import BadInput
from escalade.money import Money, money_or_none
from escalade.registry.budgets import Budget
from escalade.registry.ledger import Crossing, period_end
from escalade.registry.stores.owners import Owner, after_fork, here
from escalade.registry.stores.redis import Server
from escalade.registry.stores.shared import Change, Held, OnDeath, Row, SharedLedger, as_budget, as_crossing

_EXACT = 2**53
"""Lua counts in doubles: nano-dollars up to about nine million dollars are exact in them."""

# An account is a hash; `whole` writes a number so that it stays one. Rows go back as lists of texts.
_COMMON = """
local function whole(n) return string.format('%.0f', n) end
local function load(key, now, day, month)
  local f = redis.call('HMGET', key, 'name', 'limit', 'period', 'warn', 'brake', 'ends', 'settled', 'held', 'overrun')
  if not f[1] then return nil end
  if f[6] ~= 'inf' and tonumber(now) >= tonumber(f[6]) then
    f[6] = f[3] == 'day' and day or month
    f[7], f[9] = '0', '0'
    redis.call('HSET', key, 'ends', f[6], 'settled', '0', 'overrun', '0')
  end
  return f
end
"""

_RESERVE = (
    _COMMON
    + """
-- KEYS: hold, holds of the owner, owners, accounts...; ARGV: amount now day month owner seen about run what names
local rows, fits = {}, 1
local amount = tonumber(ARGV[1])
for i = 4, #KEYS do
  local f = load(KEYS[i], ARGV[2], ARGV[3], ARGV[4])
  if not f then fits = 0
  else
    rows[#rows + 1] = f
    if tonumber(f[7]) + tonumber(f[8]) + amount > tonumber(f[2]) then fits = 0 end
  end
end
if fits == 0 then return {0, rows} end
if redis.call('EXISTS', KEYS[1]) == 1 then return {1, rows} end
if redis.call('HEXISTS', KEYS[3], ARGV[5]) == 0 then redis.call('HSET', KEYS[3], ARGV[5], ARGV[7]) end
redis.call('HSET', KEYS[1], 'owner', ARGV[5], 'run', ARGV[8], 'what', ARGV[9], 'amount', ARGV[1], 'at', ARGV[6],
  'names', ARGV[10])
redis.call('SADD', KEYS[2], KEYS[1])
for i = 4, #KEYS do redis.call('HINCRBY', KEYS[i], 'held', ARGV[1]) end
return {1, rows}
"""
)

_SETTLE = (
    _COMMON
    + """
-- KEYS: hold, holds of the owner; ARGV: actual (or -1: all of it), now, day, month, owner, prefix
local h = redis.call('HMGET', KEYS[1], 'owner', 'amount', 'names')
if not h[1] or h[1] ~= ARGV[5] then return false end
local amount, rows = tonumber(h[2]), {}
local actual = tonumber(ARGV[1])
if actual < 0 then actual = amount end
for _, name in ipairs(cjson.decode(h[3])) do
  local key = ARGV[6] .. 'account:' .. name
  local f = load(key, ARGV[2], ARGV[3], ARGV[4])
  if f then
    rows[#rows + 1] = f
    local others, settled = tonumber(f[8]) - amount, tonumber(f[7])
    local fits = actual
    if actual > amount then fits = math.max(math.min(actual, tonumber(f[2]) - settled - others), 0) end
    redis.call('HSET', key, 'held', whole(others), 'settled', whole(settled + fits),
      'overrun', whole(tonumber(f[9]) + actual - fits))
  end
end
redis.call('DEL', KEYS[1])
redis.call('SREM', KEYS[2], KEYS[1])
return rows
"""
)

_READ = (
    _COMMON
    + """
local rows = {}
for _, key in ipairs(KEYS) do
  local f = load(key, ARGV[1], ARGV[2], ARGV[3])
  if f then rows[#rows + 1] = f end
end
return rows
"""
)

_SET = """
-- KEYS: account, names, crossings, changes; ARGV: replace, name limit period warn brake ends, now by said
local was = redis.call('HMGET', KEYS[1], 'limit', 'period', 'warn', 'brake', 'said')
local period = was[2]
if period and ARGV[1] == '0' then return 0 end
if was[1] == ARGV[3] and period == ARGV[4] and was[3] == ARGV[5] and was[4] == ARGV[6] then return 0 end
if ARGV[1] == '1' then
  redis.call('DEL', KEYS[3])
  redis.call('RPUSH', KEYS[4], cjson.encode({ARGV[8], was[5] or '', ARGV[10], ARGV[9]}))
end
redis.call('HSET', KEYS[1], 'said', ARGV[10])
redis.call('HSET', KEYS[1], 'name', ARGV[2], 'limit', ARGV[3], 'period', ARGV[4], 'warn', ARGV[5], 'brake', ARGV[6])
if period ~= ARGV[4] then redis.call('HSET', KEYS[1], 'ends', ARGV[7]) end
for _, field in ipairs({'settled', 'held', 'overrun'}) do redis.call('HSETNX', KEYS[1], field, '0') end
redis.call('SADD', KEYS[2], ARGV[2])
return 1
"""

_CLAIM = """
-- KEYS: crossings of the account; ARGV: level, ends, value, told value of the warning
local old = redis.call('HGET', KEYS[1], ARGV[1])
local function ends(text) return tonumber(cjson.decode(text).ends) end
if old and tonumber(ARGV[2]) <= ends(old) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
if ARGV[1] == 'brake' then redis.call('HSET', KEYS[1], 'warn', ARGV[4]) end
return 1
"""

_SWAP = """
-- KEYS: crossings of the account; ARGV: level, value that is expected, new value
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""

_FORGET = """
-- KEYS: holds of the owner, owners; ARGV: owner. Only who holds nothing is forgotten.
if redis.call('SCARD', KEYS[1]) == 0 then redis.call('HDEL', KEYS[2], ARGV[1]) end
return 1
"""


class RedisLedger(SharedLedger):
    """A ledger in Redis: `escalade.scope(ledger=RedisLedger("redis://localhost:6379/0", [Budget(...)]))`.

    `prefix`: of all keys, in braces, so that a cluster keeps them together. `timeout`: seconds for one command. Limits
    up to about nine million dollars. The rest as in `SharedLedger`; a reservation takes two round trips with its
    settlement, about 0.1 ms each on one host. Raises StoreUnavailable, BadInput for a server that evicts keys.
    """

    def __init__(
        self,
        url: str,
        budgets: Iterable[Budget] = (),
        *,
        prefix: str = "escalade",
        listen: Callable[[Crossing], object] | None = None,
        now: Callable[[], float] | None = None,
        lease: float = 60.0,
        on_death: OnDeath = "settle",
        rest: float = 1.0,
        timeout: float = 1.0,
    ) -> None:
        store = RedisStore(Server(url, timeout=timeout), prefix)
        super().__init__(store, budgets, listen=listen, now=now, lease=lease, on_death=on_death, rest=rest)


class RedisStore:
    """A `Store` in Redis."""

    def __init__(self, server: Server, prefix: str = "escalade") -> None:
        self.server, self._prefix = server, f"{{{prefix}}}:"
        self._owner = Owner()
        texts = (_RESERVE, _SETTLE, _READ, _SET, _FORGET)
        self._reserve, self._settle, self._read, self._set, self._forget = map(server.script, texts)
        self._claim, self._swap = map(server.script, (_CLAIM, _SWAP))
        server.check_keeps()
        self.beat()
        after_fork(self)

    def _forked(self) -> None:
        self._owner = Owner()

    def now(self) -> float:
        return self.server.now()

    def set_budget(self, budget: Budget, now: float, *, replace: bool = True, by: str = "") -> None:
        limit = int(money_or_none(budget.limit) or 0)
        if limit > _EXACT:
            raise BadInput(f"budget {budget.account!r}: a ledger in Redis counts exactly up to {Money(_EXACT)}")
        ends = repr(period_end(budget.period, now))
        fields = [budget.account, limit, budget.period, repr(budget.warn), repr(budget.brake), ends]
        said = json.dumps([budget.account, limit, budget.period, budget.warn, budget.brake])
        keys = [
            self._account(budget.account),
            self._key("names"),
            self._crossings(budget.account),
            self._key("changes"),
        ]
        self._set(keys, [int(replace), *fields, repr(now), by, said])

    def changes(self) -> list[Change]:
        found = [json.loads(line) for line in self.server.command("LRANGE", self._key("changes"), 0, -1)]
        return [
            Change(float(at), as_budget(was) if was else None, as_budget(said), by)
            for at, was, said, by in reversed(found)
        ]

    def read(self, names: Sequence[str] | None, now: float) -> list[Row]:
        if names is None:
            names = sorted(self.server.command("SMEMBERS", self._key("names")))
        if not names:
            return []
        return _rows(self._read([self._account(name) for name in names], _clock(now)))

    def reserve(
        self, key: str, names: Sequence[str], amount: int, now: float, run: str, what: str
    ) -> tuple[bool, list[Row]]:
        owner = self._owner
        keys = [self._hold(key), self._holds(owner.id), self._key("owners"), *map(self._account, names)]
        args = [amount, *_clock(now), owner.id, repr(now), self._about(), run, what, json.dumps(list(names))]
        fits, rows = self._reserve(keys, args)
        return bool(fits), _rows(rows)

    def settle(self, key: str, actual: int, now: float) -> list[Row] | None:
        return self._ended(self._hold(key), self._owner.id, actual, now)

    def forget(self, name: str) -> None:
        if all(row.held == 0 for row in self.read([name], self.now())):
            self.server.command("SREM", self._key("names"), name)
            self.server.command("DEL", self._account(name), self._crossings(name))

    def beat(self) -> None:
        self.server.command("HSET", self._key("owners"), self._owner.id, self._about())

    def sweep(self, now: float, lease: float, on_death: OnDeath) -> list[Held]:
        host, clock, ended = here(), self.server.now(), []
        for about in self.server.command("HGETALL", self._key("owners")).values():
            owner = Owner(**json.loads(about))
            if owner.id == self._owner.id or not owner.dead(clock, lease, host):
                continue
            for key in self.server.command("SMEMBERS", self._holds(owner.id)):
                held = self._held(key)
                if held and self._ended(key, owner.id, -1 if on_death == "settle" else 0, now) is not None:
                    ended.append(held)
            self._forget([self._holds(owner.id), self._key("owners")], [owner.id])
        return ended

    def claim(self, crossing: Crossing) -> bool:
        values = [self._crossing(crossing, told=told) for told in (False, True)]
        return bool(self._claim([self._crossings(crossing.account)], [crossing.level, repr(crossing.ends), *values]))

    def told(self, crossing: Crossing) -> None:
        values = [self._crossing(crossing, told=told) for told in (False, True)]
        self._swap([self._crossings(crossing.account)], [crossing.level, *values])

    def inherit(self, now: float) -> list[Crossing]:
        alive, left = set(self.server.command("HKEYS", self._key("owners"))), []
        for account in sorted(self.server.command("SMEMBERS", self._key("names"))):
            for level, value in self.server.command("HGETALL", self._crossings(account)).items():
                said = json.loads(value)
                if said["told"] or said["owner"] in alive or float(said["ends"]) <= now:
                    continue
                crossing = as_crossing(account, level, said["used"], said["limit"], float(said["ends"]))
                if self._swap([self._crossings(account)], [level, value, self._crossing(crossing, told=False)]):
                    left.append(crossing)
        return left

    def _crossing(self, crossing: Crossing, *, told: bool) -> str:
        limit = None if crossing.limit is None else int(crossing.limit)
        said = {"ends": repr(crossing.ends), "used": int(crossing.used), "limit": limit, "owner": self._owner.id}
        return json.dumps({**said, "told": told})

    def held(self) -> list[Held]:
        owners = self.server.command("HKEYS", self._key("owners"))
        keys = [key for owner in owners for key in self.server.command("SMEMBERS", self._holds(owner))]
        return sorted((held for key in keys if (held := self._held(key))), key=lambda held: held.at)

    def close(self) -> None:
        self.server.close()

    def _ended(self, hold: str, owner: str, actual: int, now: float) -> list[Row] | None:
        rows = self._settle([hold, self._holds(owner)], [actual, *_clock(now), owner, self._prefix])
        return None if rows is None else _rows(rows)

    def _held(self, key: str) -> Held | None:
        fields = self.server.command("HMGET", key, "owner", "run", "what", "amount", "names", "at")
        if fields[0] is None:
            return None
        owner, run, what, amount, names, at = fields
        return Held(key, owner, run, what, int(amount), tuple(json.loads(names)), float(at))

    def _about(self) -> str:
        return json.dumps({**asdict(self._owner), "seen": self.server.now()})

    def _key(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def _account(self, name: str) -> str:
        return f"{self._prefix}account:{name}"

    def _crossings(self, account: str) -> str:
        return f"{self._prefix}crossings:{account}"

    def _hold(self, key: str) -> str:
        return f"{self._prefix}hold:{key}"

    def _holds(self, owner: str) -> str:
        return f"{self._prefix}holds:{owner}"


def _clock(now: float) -> list[str]:
    """Now, and where a day and a month that begin now would end."""
    return [repr(now), repr(period_end("day", now)), repr(period_end("month", now))]


def _rows(found: Any) -> list[Row]:
    return [
        Row(name, int(limit), period, float(warn), float(brake), float(ends), int(settled), int(held), int(overrun))
        for name, limit, period, warn, brake, ends, settled, held, overrun in found
    ]
