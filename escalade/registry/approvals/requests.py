"""A request for approval: what it is bound to, to the byte, and what became of it.

Bound are the arguments (their canonical JSON, with defaults filled in, and the types that JSON doesn't show), the
tool's version and input schema, everybody who asks, the run, the policy, and for tools that are used `once` the step.
When one of these changes it is another request: an approval is good for nothing else.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

from escalade.errors import InvalidArguments
from escalade.registry.canonical import canonical, digest
from escalade.registry.exact import Exact, exact
from escalade.registry.privacy.redactor import Redactor
from escalade.scopes import Principal

State = Literal["pending", "approved", "denied", "used", "expired"]


@dataclass(frozen=True)
class Asked:
    """A call that needs a person. `arguments`: as validated, Python values or JSON. `step`: of the run, for tools that
    are used `once` in each.
    """

    tool: str
    version: str
    schema_digest: str
    arguments: Mapping[str, Any]
    principals: tuple[Principal, ...]
    run_id: str
    policy_digest: str
    call_id: str = ""
    rule: str = ""
    step: tuple[str | int, ...] = ()

    @property
    def text(self) -> str:
        """The arguments as canonical JSON. Raises InvalidArguments for what has none."""
        return self._exact.text

    @cached_property
    def _exact(self) -> Exact:
        try:
            return exact(self.arguments)
        except ValueError as error:
            raise InvalidArguments(f"{self.tool}: these arguments can't be shown to a person: {error}") from None

    @cached_property
    def key(self) -> str:
        """SHA-256 over everything that an approval is bound to."""
        who = [[principal.user, principal.tenant, sorted(principal.roles)] for principal in self.principals]
        what = [self.tool, self.version, self.schema_digest, self.text]
        where = [self.run_id, self.policy_digest, *([list(self.step)] if self.step else [])]
        kinds = list(self._exact.kinds)
        return digest([*what, who, *where, *([{"kinds": kinds}] if kinds else [])])


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it is kept. Times: seconds since the epoch, 0.0 for never.

    `key`: digest of all that it is bound to; `args_digest`: of the arguments alone. `arguments`: their canonical JSON,
    as the person who decides reads it: with personal data, which is what he decides about, and without secrets, which
    he has no need to know. Stores that outlive the process forget it in time; it is "null" then. `decided_by`: user
    name of the person who approved or denied. `used_by`: id of the call that ran.
    """

    id: str
    key: str
    state: State
    created: float
    expires: float
    tool: str
    version: str
    schema_digest: str
    arguments: str
    args_digest: str
    user: str
    tenant: str
    roles: str
    principals: str
    run_id: str
    policy_digest: str
    rule: str = ""
    decided_by: str = ""
    decided_at: float = 0.0
    reason: str = ""
    used_by: str = ""
    used_at: float = 0.0

    @property
    def label(self) -> str:
        """`payments.charge@1.0.0`."""
        return f"{self.tool}@{self.version}" if self.version else self.tool

    @property
    def users(self) -> list[str]:
        """User names of everybody on whose behalf it is asked."""
        return [user for user, _, _ in json.loads(self.principals)]

    def at(self, now: float) -> Request:
        """As it stands at this time: what nobody used in time has expired."""
        if self.state in {"pending", "approved", "denied"} and now >= self.expires:
            return dataclasses.replace(self, state="expired")
        return self

    def to_json(self) -> dict[str, Any]:
        """For programs: arguments, roles and principals as JSON values."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        parsed = {name: json.loads(fields[name]) for name in ("arguments", "roles", "principals")}
        return fields | parsed


class Requests(Protocol):
    """Where requests are kept. Each method is atomic across everybody who shares the store."""

    def open(self, request: Request) -> Request:
        """The newest live one of the same key (pending, approved, denied; not expired), else this one, now kept."""
        ...

    def given(self, key: str, now: float) -> list[Request]:
        """Those of this key that somebody approved, newest first: the ones that are still good, and the used ones."""
        ...

    def get(self, request_id: str) -> Request | None: ...
    def list(self) -> list[Request]:
        """All of them, oldest first."""
        ...

    def decide(self, request_id: str, state: State, by: str, reason: str, now: float) -> bool:
        """Approve or deny; False unless it was pending and not expired."""
        ...

    def use(self, request_id: str, call_id: str, now: float) -> bool:
        """Spend an approval; False unless it was approved, unused and not expired. One caller wins."""
        ...

    def give_back(self, request_id: str, call_id: str) -> None:
        """The call that spent it did not take place."""
        ...


def new_request(asked: Asked, now: float, expires: float) -> Request:
    """A pending request for a call. Raises InvalidArguments."""
    asker = asked.principals[-1]
    return Request(
        id=secrets.token_hex(8),
        key=asked.key,
        state="pending",
        created=now,
        expires=expires,
        tool=asked.tool,
        version=asked.version,
        schema_digest=asked.schema_digest,
        arguments=_legible(asked.text),
        args_digest=digest(json.loads(asked.text)),
        user=asker.user,
        tenant=asker.tenant,
        roles=json.dumps(sorted(asker.roles)),
        principals=json.dumps([[one.user, one.tenant, sorted(one.roles)] for one in asked.principals]),
        run_id=asked.run_id,
        policy_digest=asked.policy_digest,
        rule=asked.rule,
    )


def _legible(text: str) -> str:
    """Without passwords, keys and tokens, by pattern, by the name of the argument, or as this process revealed them."""
    plain = json.loads(text)
    clean = _secrets.redact_value(plain)
    return text if clean == plain else canonical(clean).decode("ascii")


_secrets = Redactor(("secret", "private_key", "url_credentials", "jwt", "api_key"), regions=())
