"""Keys that sign checkpoints, by reference: `env:NAME` or `file:PATH`. A key itself never stands in code.

Two kinds, told apart by what the reference holds:

- A PEM (`openssl genpkey -algorithm ed25519`) signs with Ed25519. Whoever verifies needs the public half only, so that
  he can't sign himself: the kind to prefer. It needs `cryptography`, which is loaded when such a key is.
- Anything else of 16 bytes or more signs with HMAC-SHA256, which is in the standard library. Whoever can verify can
  sign: it proves nothing against the machine that writes the log, and much against the rest of the world.

Without a key checkpoints are unsigned. An anchor that nobody else can write to needs no signature: what the anchor
holds was said by the log. A signature keeps those honest who can write to the anchor.
"""

from __future__ import annotations

import hmac
import os
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from escalade.errors import BadInput

SHORTEST = 16
"""Bytes of an HMAC key."""


class Signer(Protocol):
    """A key. `algorithm` and `key_id` stand in each checkpoint that it signs."""

    @property
    def algorithm(self) -> str: ...
    @property
    def key_id(self) -> str: ...
    def sign(self, message: bytes) -> bytes:
        """Raises BadInput for a key that can only verify."""
        ...

    def verify(self, message: bytes, signature: bytes) -> bool: ...


class HmacKey:
    """A shared secret of at least 16 bytes."""

    algorithm = "hmac-sha256"

    def __init__(self, secret: bytes) -> None:
        if len(secret) < SHORTEST:
            raise BadInput(f"the key of the audit log has {len(secret)} bytes; it needs {SHORTEST} or more")
        self._secret = secret
        self.key_id = sha256(b"escalade audit key id" + secret).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"HmacKey({self.key_id})"

    def sign(self, message: bytes) -> bytes:
        """32 bytes."""
        return hmac.digest(self._secret, message, "sha256")

    def verify(self, message: bytes, signature: bytes) -> bool:
        """In constant time."""
        return hmac.compare_digest(self.sign(message), signature)


class Ed25519Key:
    """A key pair, or its public half. Raises BadInput for other PEMs and where `cryptography` is not installed."""

    algorithm = "ed25519"

    def __init__(self, pem: bytes) -> None:
        try:
            forms: Any = import_module("cryptography.hazmat.primitives.serialization")
            curve: Any = import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
        except ImportError as error:
            raise BadInput("an Ed25519 key needs the package `cryptography`: pip install cryptography") from error
        private = b"PRIVATE KEY-----" in pem
        try:
            key = forms.load_pem_private_key(pem, None) if private else forms.load_pem_public_key(pem)
        except Exception as error:  # the library raises many kinds, some for a missing password
            raise BadInput("the key of the audit log is no PEM without a password") from error
        if not isinstance(key, curve.Ed25519PrivateKey | curve.Ed25519PublicKey):
            raise BadInput("the key of the audit log is no Ed25519 key: openssl genpkey -algorithm ed25519")
        self._private: Any = key if private else None
        self._public: Any = key.public_key() if private else key
        self.key_id = sha256(self._public.public_bytes_raw()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"Ed25519Key({self.key_id})"

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        if self._private is None:
            raise BadInput("a public key can verify the audit log, not write it")
        signature: bytes = self._private.sign(message)
        return signature

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Was it signed by the private half?"""
        try:
            self._public.verify(signature, message)
        except Exception:  # noqa: BLE001 - InvalidSignature, and TypeError for what is no signature at all
            return False
        return True


def load_key(reference: str) -> Signer:
    """The key behind `env:NAME` or `file:PATH`. Raises BadInput; the message never holds the key."""
    kind, _, name = reference.partition(":")
    if kind == "env" and name:
        if name not in os.environ:
            raise BadInput(f"key {reference!r}: the environment has no {name}")
        data = os.environ[name].encode()
    elif kind == "file" and name:
        try:
            data = Path(name).read_bytes()
        except OSError as error:
            raise BadInput(f"key {reference!r}: {error.strerror}") from error
    else:
        raise BadInput("a key is given by reference, env:NAME or file:PATH, never as itself")
    data = data.strip()
    return Ed25519Key(data) if data.startswith(b"-----BEGIN") else HmacKey(data)
