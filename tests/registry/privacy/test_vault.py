"""Reversible tokens: what the model sees, what the tool receives, and what nobody else can make of either."""

from __future__ import annotations

import copy
import pickle
import threading

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from escalade.errors import BadInput
from escalade.registry import privacy
from escalade.registry.catalogue import Registry
from escalade.registry.opening import scope
from escalade.registry.privacy import Pattern, Redactor, Vault
from tests.registry.helpers import react_script, scripted_lm
from tests.registry.privacy.test_redactor import mixtures


class Customer(BaseModel):
    """What a tool may return instead of JSON."""

    name: str
    email: str


fakes = st.sampled_from(
    ["<email:1>", "<email:2>", "<card:1:abcdefg>", "<email:1:aaaaaaa>", "<phone:12:x>", "<:1>", "<a:>"]
)
texts = st.lists(mixtures | fakes, max_size=5).map("".join)


@given(texts, st.booleans())
@settings(max_examples=100)
def test_there_and_back(text: str, tagged: bool) -> None:
    """What was tokenised is restored to the letter, also where the text has what looks like our tokens."""
    vault = Vault(tagged=tagged)
    assert vault.restore(vault.tokenise(text)) == text


@given(texts)
@settings(max_examples=100)
def test_there_and_back_with_a_key(text: str) -> None:
    """The same with derived tokens, and another vault with that key has the same tokens."""
    one, two = Vault(key=b"k" * 16), Vault(key=b"k" * 16)
    assert one.restore(one.tokenise(text)) == text
    assert two.tokenise(text) == one.tokenise(text)


@given(st.recursive(texts | st.integers() | st.none(), lambda x: st.lists(x) | st.dictionaries(texts, x), max_leaves=8))
@settings(max_examples=100)
def test_nested_values_there_and_back(value) -> None:
    """Lists, dicts and their keys; numbers come back as numbers."""
    vault = Vault()
    assert vault.restore(vault.tokenise_value(value)) == value


@given(texts)
def test_tokens_stay_tokens(text: str) -> None:
    """Tokenising the model's next prompt, which has the tokens of the last one, changes nothing."""
    vault = Vault()
    once = vault.tokenise(text)
    assert vault.tokenise(once) == once


def test_what_the_model_sees() -> None:
    """Tokens are numbered by type; the same value has the same token, wherever it is."""
    vault = Vault(tagged=False)
    seen = vault.tokenise("ana@example.com, bob@example.com, 4111 1111 1111 1111 and ana@example.com")
    assert seen == "<email:1>, <email:2>, <card:1> and <email:1>"
    assert vault.restore("write to <email:2>") == "write to bob@example.com"
    assert len(vault) == 3


def test_a_token_alone_gives_back_the_type() -> None:
    """A number that became a token is a number again; within a text it is text."""
    vault = Vault(tagged=False)
    assert vault.tokenise_value({"card": 4111111111111111, "n": 5}) == {"card": "<card:1>", "n": 5}
    assert vault.restore({"card": "<card:1>", "note": "is <card:1>"}) == {
        "card": 4111111111111111,
        "note": "is 4111111111111111",
    }


def test_tokens_of_another_run_mean_nothing() -> None:
    """Each vault has a tag of its own; what was not issued here is left as it is."""
    one, two = Vault(), Vault()
    token = one.tokenise("ana@example.com")
    two.tokenise("bob@example.com")
    assert two.restore(f"to {token}") == f"to {token}"
    assert one.tokenise("ana@example.com") != Vault(key=b"x" * 16).tokenise("ana@example.com")
    assert Vault(key=b"x" * 16).tokenise("ana@example.com") != Vault(key=b"y" * 16).tokenise("ana@example.com")


def test_a_look_alike_is_never_issued() -> None:
    """A text that has `<email:1>` already, written by somebody, keeps it: the address gets the next number."""
    vault = Vault(tagged=False)
    seen = vault.tokenise("<email:1> is ana@example.com")
    assert seen == "<email:1> is <email:2>"
    assert vault.restore(seen) == "<email:1> is ana@example.com"
    assert vault.tokenise("bob@example.com") == "<email:3>"


def test_redaction_leaves_tokens_alone() -> None:
    """What a log makes of a tokenised text has no more in it than the tokens."""
    seen = Vault().tokenise("password=hunter22 ana@example.com +12125550123")
    assert privacy.redact(seen).text == seen


def test_own_patterns() -> None:
    """What is found is the redactor's affair."""
    vault = Vault(Redactor([], patterns=[Pattern("badge", "B[0-9]{6}")]), tagged=False)
    assert vault.tokenise("B123456 ana@example.com") == "<badge:1> ana@example.com"


def test_it_shows_and_keeps_nothing() -> None:
    """No value in its repr, no pickle; copies of programs share it."""
    vault = Vault()
    vault.tokenise("ana@example.com")
    assert "ana" not in repr(vault)
    assert copy.deepcopy({"vault": vault})["vault"] is vault
    assert copy.copy(vault) is vault
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(pickle.PicklingError, match="never pickled"):
            pickle.dumps([vault], protocol)


def test_a_short_key_is_refused() -> None:
    """It could be guessed."""
    with pytest.raises(BadInput, match="16 bytes"):
        Vault(key=b"short")


def test_threads() -> None:
    """Threads that find the same values at once get the same tokens, and no token stands for two values."""
    vault, seen, barrier = Vault(), [], threading.Barrier(8)
    addresses = [f"user{n}@example.com" for n in range(60)]

    def work() -> None:
        barrier.wait()
        seen.append([vault.tokenise(address) for address in addresses])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(tokens == seen[0] for tokens in seen)
    assert [vault.restore(token) for token in seen[0]] == addresses


class TestTools:
    """Governed tools take part inside of `privacy.tokens()`."""

    def registry(self, received: list[str]) -> Registry:
        def find(name: str) -> dict[str, str]:
            """Find a customer."""
            return {"name": name, "email": "ana.canary@example.com"}

        async def send(to: str, subject: str = "") -> str:
            """Send a mail."""
            received.append(to)
            return f"sent to {to}"

        def model(name: str) -> Customer:
            """Find a customer, as a model."""
            return Customer(name=name, email="ana.canary@example.com")

        return Registry([find, send, model], name="vault tests")

    def test_the_tool_gets_the_value_and_the_model_a_token(self) -> None:
        """Arguments are restored on the way in, results tokenised on the way out, sync and async."""
        received: list[str] = []
        find, send = self.registry(received).tools(["find", "send"])
        with scope(), privacy.tokens() as vault:
            token = find(name="Ana")["email"]
            assert token.startswith("<email:1:")
            said = send(to=token)
        assert received == ["ana.canary@example.com"]
        assert said == f"sent to {token}"
        assert vault.restore(said) == "sent to ana.canary@example.com"

    async def test_async_and_func(self) -> None:
        """`acall` and the bare `func`, which DSPy and RLM use, go the same way."""
        received: list[str] = []
        find, send = self.registry(received).tools(["find", "send"])
        async with scope():
            with privacy.tokens():
                token = (await find.acall(name="Ana"))["email"]
                assert await send.func(to=token) == f"sent to {token}"
        assert received == ["ana.canary@example.com"]

    def test_models_of_pydantic_are_shown_as_their_fields(self) -> None:
        """A result that isn't JSON becomes JSON where something was found in it, and stays itself where nothing was."""
        (model,) = self.registry([]).tools(["model"])
        with scope():
            assert model(name="Ana").email == "ana.canary@example.com"
            with privacy.tokens():
                assert model(name="Ana")["email"].startswith("<email:1:")

    def test_an_agent_never_sees_the_value(self) -> None:
        """No prompt of a ReAct agent has the address that its tools pass on to each other; threads included."""
        received: list[str] = []
        registry = self.registry(received)
        lm = scripted_lm(*react_script("find", {"name": "Ana"}))
        with scope(), privacy.tokens(), dspy.context(lm=lm):
            agent = dspy.ReAct("question -> answer", tools=registry.tools(["find"]), max_iters=3)
            dspy.Parallel(num_threads=2, disable_progress_bar=True)([(agent, {"question": "Who?"})])
        prompts = repr(lm._engine_spec.requests) + repr(lm.history)
        assert "<email:1:" in prompts
        assert "ana.canary" not in prompts

    def test_without_a_vault_nothing_changes(self) -> None:
        """Tools see and give what they always did."""
        received: list[str] = []
        (send,) = self.registry(received).tools(["send"])
        with scope():
            assert privacy.current_vault() is None
            assert send(to="<email:1>") == "sent to <email:1>"
