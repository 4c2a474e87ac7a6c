"""Secrets by reference: resolved late, shown never."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import subprocess
import sys

import pytest
from pydantic import BaseModel, TypeAdapter

from escalade.errors import BadInput, UnknownName
from escalade.registry import secrets
from escalade.registry.secrets import Secret, register_secret_manager, resolve_secret, revealed, sealed
from escalade.registry.tools import tool
from tests._house import ROOT

VALUE = "c4n4ry-value-of-a-secret"


@pytest.fixture
def variable(monkeypatch) -> str:
    """A reference to a variable that is set."""
    monkeypatch.setenv("ESCALADE_CANARY", VALUE)
    return "env:ESCALADE_CANARY"


class TestResolving:
    def test_late_and_each_time(self, monkeypatch) -> None:
        """A secret may be written down before it exists, and is looked up again after it was changed."""
        secret = Secret("env:ESCALADE_CANARY")
        with pytest.raises(BadInput):
            secret.reveal()
        for value in ("first-value", "second-value"):
            monkeypatch.setenv("ESCALADE_CANARY", value)
            assert secret.reveal() == value

    def test_a_file(self, tmp_path) -> None:
        """The file's text without its last line break."""
        path = tmp_path / "secret"
        path.write_text(f"{VALUE}\n", "utf-8")
        assert Secret(f"file:{path}").reveal() == VALUE

    def test_a_manager(self) -> None:
        """A manager of one's own gets what follows the colon."""
        register_secret_manager("vault", {"crm/token": VALUE}.get)
        assert Secret("vault:crm/token").reveal() == VALUE
        assert Secret.of("vault:crm/token").reference == "vault:crm/token"

    def test_whatever_is_passed_as_a_key(self, variable) -> None:
        """A secret, a reference, a plain value, or none."""
        assert resolve_secret(variable) == resolve_secret(Secret(variable)) == resolve_secret(VALUE) == VALUE
        assert resolve_secret(None) is None
        assert resolve_secret("user:password") == "user:password"


class TestWhatIsMissing:
    def test_a_variable(self, monkeypatch) -> None:
        """The reference is named, what to do is said, and no other variable is shown."""
        monkeypatch.setenv("ESCALADE_CANARY", VALUE)
        with pytest.raises(BadInput, match=r"env:ESCALADE_CANERY.*set the environment variable") as caught:
            Secret("env:ESCALADE_CANERY").reveal()
        assert VALUE not in str(caught.value)

    @pytest.mark.parametrize("content", [None, "", b"\xff\xfe\xff"])
    def test_a_file(self, tmp_path, content) -> None:
        """One that isn't there, is empty, or is no text."""
        path = tmp_path / "secret"
        if content is not None:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(BadInput, match="secret file:"):
            Secret(f"file:{path}").reveal()

    def test_a_manager_that_fails(self) -> None:
        """Its exception, which may quote anything, is not shown nor chained."""

        def failing(rest: str) -> str:
            raise RuntimeError(f"no {VALUE} for {rest}")

        register_secret_manager("broken", failing)
        with pytest.raises(BadInput, match="its manager failed with RuntimeError") as caught:
            Secret("broken:x").reveal()
        assert VALUE not in str(caught.value)
        assert caught.value.__suppress_context__

    def test_nothing_behind_a_reference(self) -> None:
        """A manager that knows none, and one that doesn't exist."""
        register_secret_manager("empty", lambda rest: None)
        with pytest.raises(BadInput, match="secret empty:x is not there"):
            Secret("empty:x").reveal()
        with pytest.raises(UnknownName, match="did you mean 'file'"):
            Secret("fiel:x").reveal()

    @pytest.mark.parametrize("text", ["", VALUE, "ENV:NAME", "env:", None])
    def test_what_is_no_reference(self, text) -> None:
        """It may be the secret itself, by mistake: it isn't quoted."""
        with pytest.raises(BadInput, match="not a reference") as caught:
            Secret(text)
        assert VALUE not in str(caught.value)
        with pytest.raises(BadInput, match="empty"):
            Secret.of("")

    @pytest.mark.parametrize("scheme", ["env", "given", "Not one", ""])
    def test_schemes_that_are_taken(self, scheme) -> None:
        """Ours can't be replaced, and a scheme is a word."""
        with pytest.raises(BadInput, match="secret manager"):
            register_secret_manager(scheme, lambda rest: rest)
        with pytest.raises(BadInput, match="callable"):
            register_secret_manager("other", None)


class TestShowing:
    @pytest.mark.parametrize("plain", [True, False], ids=["plain", "reference"])
    def test_nothing_shows_the_value(self, variable, plain) -> None:
        """Not repr, str, format, pickle, copy, pydantic, nor the attributes."""
        secret = Secret.of(VALUE) if plain else Secret(variable)
        secret.reveal()

        class Settings(BaseModel):
            key: Secret

        model = Settings(key=secret)
        shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", repr({"k": [secret]}), secret.reference]
        shown += [
            repr(model),
            model.model_dump_json(),
            repr(model.model_dump()),
            repr(pickle.dumps([secret, model.key])),
        ]
        shown += [repr(copy.deepcopy(secret)), json.dumps(secret, default=repr)]
        assert not [text for text in shown if VALUE in text]
        assert not hasattr(secret, "__dict__")

    def test_equal_by_reference(self, variable) -> None:
        """The same reference is the same secret, also after copies and pickles; secrets can't be changed."""
        secret = Secret(variable)
        assert secret == Secret(variable) == pickle.loads(pickle.dumps(secret)) == copy.deepcopy(secret)
        assert len({secret, Secret(variable), Secret("env:OTHER")}) == 2
        assert secret != variable
        with pytest.raises(AttributeError, match="immutable"):
            secret._reference = "env:OTHER"

    def test_plain_values(self) -> None:
        """The same value is the same secret; its reference tells nothing of it, and finds it in this process only."""
        secret, twin = Secret.of(VALUE), Secret.of(VALUE)
        assert secret == twin
        assert pickle.loads(pickle.dumps(secret)).reveal() == VALUE
        assert secret != Secret.of(f"{VALUE}2")

    def test_plain_values_are_not_pickled(self) -> None:
        """Another process can't have it, and is told what to do instead."""
        code = (
            "import pickle, sys\nsecret = pickle.loads(sys.stdin.buffer.read())\nprint(secret)\n"
            "try: secret.reveal()\nexcept ValueError as error: print(error)"
        )
        data = pickle.dumps(Secret.of(VALUE))
        run = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True, cwd=ROOT)
        told = run.stdout.decode()
        assert told.startswith("Secret('given:")
        assert "refer to it instead" in told
        assert VALUE not in told

    def test_plain_values_are_let_go(self) -> None:
        """A secret that nobody has any more can't be found by its reference."""
        reference = Secret.of("value-that-nobody-keeps").reference
        gc.collect()
        with pytest.raises(BadInput, match="another process"):
            Secret(reference).reveal()

    def test_settings(self, variable) -> None:
        """A settings model takes references; a plain value is wrapped, since a refusal would quote it."""
        adapter = TypeAdapter(Secret)
        assert adapter.validate_python(variable) == Secret(variable)
        assert VALUE not in repr(adapter.validate_python(VALUE))
        assert adapter.dump_json(Secret(variable)) == f'"{variable}"'.encode()

    def test_no_parameter_of_a_tool(self) -> None:
        """A model that may name references could read every variable: such a tool is refused."""

        def call(key: Secret) -> str:
            """Call."""
            return key.reveal()

        with pytest.raises(BadInput, match="models don't hand over secrets"):
            tool(call)


def test_nested_settings() -> None:
    """Plain values under a secret's name are wrapped; for a provider they are put back, that instant."""
    given = {"extra_headers": {"Authorization": f"Bearer {VALUE}", "X-Team": "a"}, "seeds": [1, 2], "pair": ("a", "b")}
    kept = sealed(given)
    assert VALUE not in repr(kept)
    assert kept["extra_headers"]["X-Team"] == "a"
    assert revealed(kept) == given


def test_names_of_secrets() -> None:
    """What a field with a secret is called, and what sounds like it and isn't."""
    yes = [
        "password",
        "DB_PASSWORD",
        "apiKey",
        "api-key",
        "x-api-key",
        "Authorization",
        "client_secret",
        "access_token",
    ]
    yes += ["OPENAI_API_KEY", "accessToken", "aws_secret_access_key", "passwd", "senha", "private_key", "Set-Cookie"]
    no = [
        "key",
        "max_tokens",
        "tokens",
        "monkey",
        "keyboard",
        "secretary",
        "token_count",
        "author",
        "passport",
        "compass",
    ]
    assert [name for name in yes if not secrets.names_secret(name)] == []
    assert [name for name in no if secrets.names_secret(name)] == []
