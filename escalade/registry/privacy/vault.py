"""Reversible tokens: the model sees `<email:1:k7f2qa>`, the tool receives the address.

    vault = Vault()
    with privacy.tokens(vault):                      # governed tools take part
        answer = agent(question=vault.tokenise(question))
    print(vault.restore(answer.text))

A vault belongs to one run of one tenant. The last part of its tokens is drawn anew for each vault, so that the token of
another run, in an old transcript or in an injected text, stands for nothing here. A `key` makes tokens the same
wherever the key is the same, for runs that are resumed by another process.

A vault is never pickled, and shows no value in its `repr`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import pickle
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from escalade.errors import BadInput
from escalade.registry.privacy.patterns import TOKEN
from escalade.registry.privacy.redactor import Redactor, default, rebuilt

KEY = "escalade_vault"
"""The key of `dspy.context` that carries the vault: it reaches the threads of `dspy.Parallel`, as the scope does."""

_INNER = 8


class Vault:
    """What tokens of one run stand for, in memory.

    `redactor`: what is found; the default one. `key`: 16 bytes or more, from which tokens are derived instead of being
    counted, `<email:q2k7…>`: the same value has the same token in each vault with that key. `tagged=False` leaves the
    tag out, `<email:1>`: easier for small models, and a token of another run may mean something else here.

    Raises BadInput for a short key.
    """

    def __init__(self, redactor: Redactor | None = None, *, key: bytes | None = None, tagged: bool = True) -> None:
        if key is not None and len(key) < 16:
            raise BadInput("the key of a vault needs 16 bytes or more, such as os.urandom(32)")
        self._redactor, self._key = redactor, key
        self._tag = f":{_letters(os.urandom(4))}" if tagged else ""
        self._lock = threading.RLock()
        self._tokens: dict[tuple[str, str], str] = {}
        self._values: dict[str, Any] = {}
        self._foreign: set[str] = set()
        self._issued: Counter[str] = Counter()

    def tokenise(self, text: str) -> str:
        """The text with a token for each find. Tokens of this vault that are in it already stay.

        What only looks like a token of ours is left as it is, and never becomes one.
        """
        self._avoid(text)
        redactor = self._redactor or default()
        return redactor.replace(text, lambda span, value: self._token(span.type, value, value))

    def tokenise_value(self, value: Any) -> Any:
        """`tokenise` for a nested value, as a tool returns it. Numbers that are found become tokens, too."""
        plain = _as_json(value)
        made = _mapped(plain, self._tokenised)
        return value if made is plain else made

    def restore(self, value: Any) -> Any:
        """The value with what its tokens stand for, nested too, in keys too. A token on its own gives back the type."""
        return _mapped(value, lambda item: self._restored(item) if isinstance(item, str) else item)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<vault with {len(self)} values>"

    def __copy__(self) -> Vault:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Vault:
        return self

    def __reduce__(self) -> NoReturn:
        raise pickle.PicklingError(
            "a vault holds raw personal data and is never pickled; make one per process, with the same `key` where "
            "tokens have to stay the same"
        )

    def _tokenised(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.tokenise(value)
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) and 10**8 <= value < 10**19 else ""
        spans = (self._redactor or default()).find(text) if text else []
        whole = spans and spans[0].end - spans[0].start == len(text)
        return self._token(spans[0].type, f"int {text}", value) if whole else value

    def _avoid(self, text: str) -> None:
        for match in TOKEN.finditer(text) if "<" in text else ():
            if match[0] not in self._values:
                with self._lock:
                    self._foreign.add(match[0])

    def _token(self, kind: str, identity: str, value: Any) -> str:
        with self._lock:
            token = self._tokens.get((kind, identity))
            if token is None:
                token = self._derived(kind, identity) if self._key is not None else self._counted(kind)
                self._tokens[kind, identity], self._values[token] = token, value
            return token

    def _counted(self, kind: str) -> str:
        while True:
            self._issued[kind] += 1
            token = f"<{kind}:{self._issued[kind]}{self._tag}>"
            if token not in self._foreign:
                return token

    def _derived(self, kind: str, identity: str) -> str:
        key = self._key or b""
        for attempt in range(1_000_000):
            message = f"{kind}\0{attempt}\0{identity}".encode("utf-8", "surrogatepass")
            token = f"<{kind}:{_letters(hmac.new(key, message, hashlib.sha256).digest()[:8])}>"
            if token not in self._foreign and token not in self._values:
                return token
        raise AssertionError("64 bits collide a million times")

    def _restored(self, text: str) -> Any:
        if text in self._values:
            return self._inner(self._values[text])
        return TOKEN.sub(self._raw, text) if "<" in text else text

    def _raw(self, match: re.Match[str]) -> str:
        return str(self._inner(self._values.get(match[0], match[0])))

    def _inner(self, value: Any) -> Any:
        """A find may hold a token that was put there a pass before: older ones only, so that this ends."""
        for _ in range(_INNER):
            if not isinstance(value, str) or "<" not in value:
                break
            inner = TOKEN.sub(lambda m: str(self._values.get(m[0], m[0])), value)
            if inner == value:
                break
            value = inner
        return value


def _letters(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()


@contextlib.contextmanager
def tokens(vault: Vault | None = None) -> Iterator[Vault]:
    """Let governed tools take part in this block: arguments are restored before a tool sees them, results tokenised
    before the model does. None makes a new vault.
    """
    import dspy

    used = Vault() if vault is None else vault
    with dspy.context(**{KEY: used}):
        yield used


def current_vault() -> Vault | None:
    """The vault of this task or thread."""
    import dspy

    vault: Vault | None = dspy.settings.get(KEY)
    return vault


def raw_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a tool is called with: tokens of the current vault replaced by what they stand for."""
    vault = current_vault()
    return (args, kwargs) if vault is None else (vault.restore(args), vault.restore(kwargs))


def masked(result: Any) -> Any:
    """What a model sees of a tool's result: tokens of the current vault; the result itself without one."""
    vault = current_vault()
    return result if vault is None else vault.tokenise_value(result)


def _mapped(value: Any, change: Callable[[Any], Any], depth: int = 0) -> Any:
    """A nested value with each leaf and key changed; a container in which nothing changed is itself."""
    if isinstance(value, Mapping):
        made: Any = {_hashable(change(k), k): _mapped(v, change, depth + 1) for k, v in value.items()}
        same = all(k in made and made[k] is v for k, v in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        items = [_mapped(item, change, depth + 1) for item in value]
        same = all(a is b for a, b in zip(items, value, strict=True))
        made = value if same else rebuilt(value, items)
    else:
        return change(value)
    return value if same else made


def _hashable(key: Any, before: Any) -> Any:
    return key if isinstance(key, str | int) else before


def _as_json(value: Any) -> Any:
    """What is no JSON, such as a model of pydantic, as JSON: its fields are what the model will see."""
    from pydantic_core import to_jsonable_python

    if isinstance(value, str | int | float | Mapping | list | tuple | set | frozenset | None):
        return value
    return to_jsonable_python(value, fallback=repr)
