"""Personal data and secrets: found, replaced, and kept out of records, logs, spans, errors and prompts.

    from escalade.registry import privacy

    privacy.redact("ana@example.com paid with 4111 1111 1111 1111").text     # "<email> paid with <card>"
    privacy.redact_value({"to": "ana@example.com", "api_key": "…"})          # nested, keys too

    with privacy.tokens() as vault:      # reversible: the model sees <email:1:k7f2qa>, the tool the address
        agent(question=vault.tokenise(question))

    checks       check digits: Luhn, mod 97, CPF, CNPJ, SSN, addresses
    patterns     what isn't made of digits: e-mail, IBAN, IPv6, keys, passwords; patterns of your own
    numbers      what is: cards, CPF, CNPJ, SSN, IPv4
    phones       phone numbers, better with the extra `pii`
    redactor     text and nested values
    vault        reversible tokens
    names        what stands for the names of people in records
    outlets      errors, logs, spans
    spans        an exporter for the spans of others

Found are forms that can be recognised. Names of people and places can't, and neither can what is spelled out in words.
Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from escalade.registry.privacy.names import alias, alias_key
    from escalade.registry.privacy.outlets import (
        RedactingFilter,
        error_line,
        install,
        safe_line,
        span_attributes,
    )
    from escalade.registry.privacy.patterns import Pattern
    from escalade.registry.privacy.redactor import (
        TYPES,
        Redacted,
        Redactor,
        default,
        redact,
        redact_value,
        set_default,
    )
    from escalade.registry.privacy.spans import RedactingExporter
    from escalade.registry.privacy.vault import Vault, current_vault, masked, raw_arguments, tokens

_MODULES = {
    "names": ("alias", "alias_key"),
    "outlets": ("RedactingFilter", "error_line", "install", "safe_line", "span_attributes"),
    "patterns": ("Pattern",),
    "redactor": ("TYPES", "Redacted", "Redactor", "default", "redact", "redact_value", "set_default"),
    "spans": ("RedactingExporter",),
    "vault": ("Vault", "current_vault", "raw_arguments", "masked", "tokens"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "TYPES",
    "Pattern",
    "Redacted",
    "RedactingExporter",
    "RedactingFilter",
    "Redactor",
    "Vault",
    "alias",
    "alias_key",
    "current_vault",
    "default",
    "error_line",
    "install",
    "masked",
    "raw_arguments",
    "redact",
    "redact_value",
    "safe_line",
    "set_default",
    "span_attributes",
    "tokens",
]


def __getattr__(name: str) -> Any:
    """Import a name from its module, once."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
