"""Where and how runs are executed, in a file, `escalade.yaml` (or the same as JSON or TOML): the code stays as it is.

    engine: dbos                      # or inline: in one process, without anything else
    url: sqlite:///var/runs.sqlite    # later: postgresql://app@db.example/app
    password: env:PGPASSWORD          # where it is, never the password
    pipelines:
      report: app.pipelines:report    # module:attribute
    queues:
      nightly: {concurrency: 2, rate: 20/min, pipelines: [report]}
    budgets: budgets.yaml
    policy: policy.yaml
    audit: var/audit.sqlite           # later: postgresql, the database of `url`
    approvals: var/approvals.sqlite   # likewise
    cache: disk:var/answers           # later: postgresql, the database of `url`

From one process to many hosts, `url` is what changes: runs, queues, slots, budgets and rate limits are there, and what
says `postgresql`: the record, requests for approval, answers of models. Relative paths are those of the file's folder.
`data/escalade.schema.json` describes the form, for editors; `escalade runs schema` prints it.

    config = load_config("escalade.yaml")
    runs = config.runs()
    gateway = Gateway(models, cache=config.cache())
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from escalade.errors import BadInput
from escalade.pipelines.durable.queues import RunQueue, checked
from escalade.registry.access.files import read_file
from escalade.registry.limits import parse_limits
from escalade.registry.places import Place, Problem, key_of, lines_of
from escalade.registry.stores.addresses import in_tables

if TYPE_CHECKING:
    from escalade.agents.cache import ResponseCache
    from escalade.pipelines.durable.port import Engine
    from escalade.pipelines.durable.runs import Runs
    from escalade.registry.ledger import Ledger
    from escalade.registry.limits import RateLimiter

SCHEMA_FILE = Path(__file__).parents[1] / "data" / "escalade.schema.json"
"""JSON schema of these files, as it was published with this version."""

NAME = "escalade.yaml"
"""The file that is looked for where none is named."""

_TARGET = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"
_URL = r"^(sqlite:///.+|postgres(ql)?://.+)$"
_CACHE = r"^(disk:.+|redis(s)?://.+|postgresql)$"


def _no_password(url: str) -> str:
    if not url.startswith("sqlite:") and urlsplit(url).password:
        raise ValueError("an address without the password; write `password: env:NAME` beside it")
    return url


def _in_tables(where: str) -> str:
    in_tables(where, "this")
    return where


Url = Annotated[str, Field(pattern=_URL), AfterValidator(_no_password)]
Kept = Annotated[str, AfterValidator(_in_tables), AfterValidator(_no_password)]
Target = Annotated[str, Field(pattern=_TARGET)]


class QueueSpec(BaseModel):
    """One queue."""

    model_config = ConfigDict(extra="forbid", strict=True)

    concurrency: int = Field(8, ge=1, description="Runs that one process executes at once.")
    rate: str | None = Field(
        None, description="How often runs are begun, by all processes together, like 5/s or 100/min."
    )
    pipelines: list[str] = Field([], description="Whose runs are in it.")

    @field_validator("rate")
    @classmethod
    def _rate(cls, rate: str | None) -> str | None:
        parse_limits(rate)
        return rate


class Spec(BaseModel):
    """What the file says."""

    model_config = ConfigDict(extra="forbid", strict=True)

    schema_: str | None = Field(None, alias="$schema")
    version: Literal[1] = 1
    engine: Literal["inline", "dbos"] = Field("inline", description="Who executes: this process alone, or any number.")
    url: Url = Field(description="Where runs are kept: sqlite:///PATH, or postgresql://USER@HOST/DATABASE.")
    password: str | None = Field(
        None, pattern=r"^[a-z][a-z0-9_+.-]*:.+", description="Of the database, by reference, like env:PGPASSWORD."
    )
    pipelines: dict[str, Target] = Field({}, description="Names that runs know pipelines by: module:attribute of each.")
    application: str | None = Field(
        None, description="The application's version. Runs go on with processes of the version that they began with."
    )
    workers: Literal[0, 1] = Field(1, description="0: a process that starts runs leaves it to workers to execute them.")
    concurrency: int = Field(8, ge=1, description="Runs that one process executes at once, of the queue `default`.")
    queues: dict[str, QueueSpec] = Field({}, description="Other queues.")
    ledger: Url | None = Field(None, description="Where budgets are kept, where that isn't `url`.")
    limits: Url | None = Field(None, description="Where rate limits are kept, where that isn't `url`.")
    budgets: str | None = Field(None, description="A file of budgets.")
    policy: str | None = Field(None, description="A file that says who may do what.")
    approvals: Kept | None = Field(
        None, description="Calls that wait for a person: a SQLite file, postgresql for `url`, or postgresql://..."
    )
    audit: Kept | None = Field(None, description="The record: a SQLite file, postgresql for `url`, or postgresql://...")
    cache: str | None = Field(
        None, pattern=_CACHE, description="Answers of models: disk:FOLDER, redis://..., or postgresql for `url`."
    )

    @model_validator(mode="after")
    def _fit(self) -> Spec:
        checked({name: _queue(spec) for name, spec in self.queues.items()}, self.concurrency)
        for name, spec in self.queues.items():
            for pipeline in spec.pipelines:
                if pipeline not in self.pipelines:
                    raise ValueError(f"queue {name!r} names pipeline {pipeline!r}, which `pipelines` has not")
        for key, instead in (("cache", "disk:FOLDER"), ("audit", "a path"), ("approvals", "a path")):
            if getattr(self, key) == "postgresql" and self.url.startswith("sqlite:"):
                raise ValueError(f"{key}: postgresql is the database of `url`, which is a SQLite file; write {instead}")
        return self


def _queue(spec: QueueSpec) -> RunQueue:
    return RunQueue(spec.concurrency, spec.rate, tuple(spec.pipelines))


@dataclass(frozen=True)
class Config:
    """What a file says, and what comes of it. `file`: where it says so. Nothing is opened before it is asked for."""

    file: Path
    spec: Spec

    @property
    def url(self) -> str:
        """The store's address, with its password. Raises BadInput for a reference that leads nowhere."""
        return self._address(self.spec.url)

    def engine(self, *, workers: int | None = None, name: str | None = None, concurrency: int | None = None) -> Engine:
        """Who executes runs. `workers`, `concurrency`: instead of the file's. `name`: of this process."""
        spec = self.spec
        if spec.engine == "inline":
            from escalade.pipelines.durable.inline import Inline

            return Inline(concurrency=concurrency or spec.concurrency)
        from escalade.pipelines.durable.dbos_engine import DbosEngine

        return DbosEngine(
            self.url,
            workers=spec.workers if workers is None else workers,
            concurrency=concurrency or spec.concurrency,
            queues={queue: _queue(one) for queue, one in spec.queues.items()},
            name=name,
            version=spec.application,
        )

    def runs(self, *, engine: Engine | None = None, pipelines: bool = True) -> Runs:
        """The runs. `pipelines`: with those of the file, whose modules are imported now; else none. Raises BadInput."""
        from escalade.pipelines.durable.runs import Runs

        found = (
            {name: self._pipeline(name, target) for name, target in self.spec.pipelines.items()} if pipelines else {}
        )
        return Runs(
            self.url,
            engine=self.engine() if engine is None else engine,
            pipelines=found,
            ledger=self.ledger(),
            access=self._policy(),
            recorder=self._audit(),
            approvals=self._approvals(),
        )

    def ledger(self) -> Ledger:
        """Budgets that all processes share, those of the file set."""
        from escalade.registry.budgets_file import load_budgets
        from escalade.registry.stores.opened import open_ledger

        budgets = () if self.spec.budgets is None else load_budgets(self._path(self.spec.budgets))
        return open_ledger(self._beside(self.spec.ledger, "ledger"), budgets)

    def limiter(self) -> RateLimiter:
        """Rate limits that all processes share: `Registry(tools, limiter=config.limiter())`."""
        from escalade.registry.stores.opened import open_limiter

        return open_limiter(self._beside(self.spec.limits, "limits"))

    def cache(self) -> ResponseCache | None:
        """Answers that all processes share: `Gateway(models, cache=config.cache())`; None where the file has none."""
        from escalade.agents.cache import ResponseCache
        from escalade.registry.stores.opened import open_cache

        said = self.spec.cache
        if said is None:
            return None
        if said.startswith("disk:"):
            return ResponseCache(self._path(said.removeprefix("disk:")))
        opened: Any = open_cache(self.url if said == "postgresql" else said)
        return ResponseCache(store=opened)

    def _beside(self, said: str | None, what: str) -> str:
        """The address that the file has for it, else that of the runs; of a file, one of its own beside that."""
        if said is None and self.spec.url.startswith("sqlite:"):
            return f"{self.url}.{what}"
        return self._address(said or self.spec.url)

    def _policy(self) -> Any:
        from escalade.registry.access.policy import Roles

        return None if self.spec.policy is None else Roles.load(self._path(self.spec.policy))

    def _audit(self) -> Any:
        from escalade.registry.audit.log import AuditLog

        return None if self.spec.audit is None else AuditLog(self._kept(self.spec.audit))

    def _approvals(self) -> Any:
        if self.spec.approvals is None:
            return None
        from escalade.registry.approvals.desk import Approvals
        from escalade.registry.stores.opened import open_requests

        return Approvals(open_requests(self._kept(self.spec.approvals)), access=self._policy())

    def _kept(self, said: str) -> str:
        """Where something is that has a path, an address, or is in the database of the runs."""
        if said == "postgresql":
            return self.url
        return self._address(said) if "://" in said else str(self._path(said))

    def _address(self, url: str) -> str:
        if url.startswith("sqlite:"):
            return f"sqlite:///{self._path(url.removeprefix('sqlite:///'))}"
        return url if self.spec.password is None else with_password(url, self.spec.password)

    def _path(self, path: str) -> Path:
        return self.file.parent.absolute() / path

    def _pipeline(self, name: str, target: str) -> Any:
        try:
            return load_target(target)
        except BadInput as error:
            text = self.file.read_text("utf-8")
            line = lines_of(self.file, text)(("pipelines", name))
            raise BadInput(str(Problem(str(self.file), line, f"pipelines.{name}", str(error)))) from error.__cause__


def load_config(path: str | os.PathLike[str] = NAME) -> Config:
    """What the file says. Raises BadInput: `FILE:LINE: KEY: what is wrong`."""
    file = Path(path)
    text, written = read_file(file)
    lines = lines_of(file, text)
    if not isinstance(written, Mapping):
        raise BadInput(f"{file}: expected a mapping with the key 'url', like `url: sqlite:///runs.sqlite`")
    try:
        return Config(file, Spec.model_validate(written))
    except ValidationError as error:
        place, message = _amiss(error)
        raise BadInput(str(Problem(str(file), lines(place), key_of(place), message))) from None


def _amiss(error: ValidationError) -> tuple[Place, str]:
    """Where the first thing is wrong, and what; never the value: it may be a password."""
    one = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place, message = one["loc"], " ".join(one["msg"].removeprefix("Value error, ").split())
    field = str(place[-1]) if place else ""
    if one["type"] == "extra_forbidden":
        known = QueueSpec if len(place) > 1 else Spec
        message = f"unknown key (known: {', '.join(name for name in known.model_fields if name != 'schema_')})"
    elif one["type"] == "string_pattern_mismatch":
        message = _EXPECTED.get(field) or _EXPECTED["target" if place[0] == "pipelines" else "url"]
    elif one["type"] == "missing":
        message = "is missing: where runs are kept, like `url: sqlite:///runs.sqlite`"
    return place, message


_EXPECTED = {
    "url": "expected sqlite:///PATH or postgresql://USER@HOST/DATABASE",
    "target": "expected module:attribute, like app.pipelines:report",
    "password": "expected a reference to the password, like env:PGPASSWORD, not the password itself",
    "cache": "expected disk:FOLDER, redis://HOST or postgresql",
}


def with_password(url: str, reference: str) -> str:
    """The address with the password that the reference leads to. Raises BadInput."""
    from escalade.registry.secrets import Secret

    parts = urlsplit(url)
    user = parts.username or ""
    where = parts.netloc.rpartition("@")[2]
    login = f"{user}:{quote(Secret(reference).reveal(), safe='')}"
    return urlunsplit(parts._replace(netloc=f"{login}@{where}"))


def load_target(target: str) -> Any:
    """What `module:attribute` names, as `python -m` would find the module. Raises BadInput."""
    module, colon, attribute = target.partition(":")
    if not (module and colon and attribute):
        raise BadInput(f"{target!r}: {_EXPECTED['target']}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"module {module!r} can't be imported: {type(error).__name__}: {error}") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise BadInput(f"module {module!r} has no {attribute!r}")
        found = getattr(found, name)
    return found


def config_schema() -> dict[str, Any]:
    """The JSON schema of these files."""
    schema = Spec.model_json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Runs of escalade"
    return schema
