r"""The chain: how a row's hash is made from the row before it.

    hash(n) = SHA-256( hash(n-1) | "seq at event len(call) call\n" | body )        hash(0) = 32 zero bytes

`|` joins bytes. Nothing is ambiguous: the first part has 32 bytes, the second (UTF-8) ends with the newline that
follows `len(call)` characters of `call`, the rest is the body. All columns of a row are in its hash, so that none can
be changed, and the sequence number is, so that no two rows can be swapped.

One chain per log, whatever the number of processes that write to it. SQLite lets one process write at a time anyway,
and in PostgreSQL a lock does: a chain for each would need something above the chains to say that none of them was
removed. The price is that the head is read while others wait, once per commit: 10 us, or a round trip to a server.
"""

from __future__ import annotations

from hashlib import sha256

ZERO = bytes(32)
"""What the first row follows."""


def link(before: bytes, seq: int, at: int, event: str, call: str, body: bytes) -> bytes:
    """The hash of a row (32 bytes) that follows the row whose hash is `before`. `at`: microseconds since 1970.

    Raises TypeError for a value of another type, as a database that was tampered with may hold.
    """
    return sha256(before + f"{seq:d} {at:d} {event} {len(call)} {call}\n".encode() + body).digest()
