"""Where text leaves us: lines for models and records, log records, attributes of spans."""

from __future__ import annotations

import io
import logging
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.registry import privacy
from escalade.registry.journal import Journal
from escalade.registry.ledger import Ledger
from escalade.registry.opening import scope
from escalade.registry.privacy import RedactingFilter, error_line, install, safe_line, span_attributes
from tests._house import ROOT

HOME = "/" + "home/ana"


class TestLines:
    def test_one_line(self) -> None:
        """Line breaks become spaces, personal data placeholders, paths of this machine `<path>`."""
        text = f"could not mail\nana@example.com:\n  see {HOME}/mail/out.log, or C:\\Users\\ana\\out.log"
        assert safe_line(text) == "could not mail <email>: see <path>, or <path>"

    def test_no_traceback(self) -> None:
        """Of an error that quotes a traceback, the frames are left out, and what it says stays."""
        try:
            raise ValueError("card 4111 1111 1111 1111 refused")
        except ValueError:
            import traceback

            quoted = f"remote failed\n{traceback.format_exc()}"
        assert safe_line(quoted) == "remote failed ValueError: card <card> refused"

    def test_urls_are_no_paths(self) -> None:
        """An address on the web is not a path of this machine."""
        assert safe_line("GET https://x.example/v1/items/7 failed") == "GET https://x.example/v1/items/7 failed"

    def test_length(self) -> None:
        """Longer lines are cut, after they were redacted: half a secret would be recognised by nobody."""
        line = safe_line("x " * 140 + "sk-abcdefghijklmnopqrstuvwx1234567890")
        assert len(line) <= 300
        assert "sk-abc" not in line

    def test_errors(self) -> None:
        """The class, and what it says; also for errors that say nothing or can't be printed."""

        class Odd(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        assert error_line(KeyError("ana@example.com")) == "KeyError: '<email>'"
        assert error_line(ValueError()) == "ValueError"
        assert error_line(Odd()) == "Odd"

    @given(st.text(max_size=400), st.integers(10, 300))
    def test_any_text(self, text: str, limit: int) -> None:
        """Whatever it is given, it is one line of that length."""
        line = safe_line(text, limit)
        assert len(line) <= limit
        assert len(line.splitlines()) <= 1


class TestSpans:
    def test_attributes(self) -> None:
        """Scalars stay what they are, the rest becomes text; all of it redacted and of bounded length."""
        given = {
            "gen_ai.tool.name": "mail", "n": 3, "ok": True, "cost": 0.5, "none": None, "to": "ana@example.com",
            "args": {"to": ["ana@example.com"]}, "long": "x" * 5000, "api_key": "whatever",
        }  # fmt: skip
        clean = span_attributes(given)
        assert clean == {
            "gen_ai.tool.name": "mail", "n": 3, "ok": True, "cost": 0.5, "to": "<email>",
            "args": "{'to': ['<email>']}", "long": "x" * 1023 + "…", "api_key": "<secret>",
        }  # fmt: skip


@pytest.fixture
def logged():
    """A logger with the filter, and what it wrote."""
    logger, out = logging.getLogger("escalade.tests.outlets"), io.StringIO()
    handler, redacting = logging.StreamHandler(out), RedactingFilter()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.addFilter(redacting)
    logger.propagate = False
    yield logger, out
    logger.removeHandler(handler)
    logger.removeFilter(redacting)
    logger.propagate = True


class TestLogs:
    def test_messages_and_arguments(self, logged) -> None:
        """In the format, in its arguments, in a mapping of arguments."""
        logger, out = logged
        logger.warning("ana@example.com and %s", "4111 1111 1111 1111")
        logger.warning("to %(to)s", {"to": "ana@example.com"})
        logger.warning("%d plain %s", 3, "words")
        assert out.getvalue() == "WARNING <email> and <card>\nWARNING to <email>\nWARNING 3 plain words\n"

    def test_exceptions_and_stacks(self, logged) -> None:
        """An exception's text and its traceback, and a stack that was asked for."""
        logger, out = logged
        try:
            raise ValueError("no such user: ana@example.com")
        except ValueError:
            logger.exception("failed", stack_info=True)
        text = out.getvalue()
        assert "no such user: <email>" in text
        assert "Traceback" in text
        assert "@" not in text.replace("@pytest", "")

    def test_harmless_exceptions_stay(self, logged) -> None:
        """Where nothing is found, handlers get the exception itself, as usual."""
        logger, _ = logged
        record = logger.makeRecord("n", 40, "f", 1, "m", (), (ValueError, ValueError("x"), None))
        assert RedactingFilter().filter(record)
        assert record.exc_info
        assert not record.exc_text

    def test_extra_fields(self, logged) -> None:
        """Fields for structured logs; what is called like a secret is replaced as a whole."""
        logger, _ = logged
        extra = {"user": {"mail": "ana@example.com"}, "api_key": "plain", "n": 3}
        record = logger.makeRecord("n", 20, "f", 1, "m", (), None, extra=extra)
        RedactingFilter().filter(record)
        assert (record.user, record.api_key, record.n) == ({"mail": "<email>"}, "<secret>", 3)
        assert pickle.dumps(record)

    def test_formats_that_do_not_fit(self, logged) -> None:
        """A broken call of the logger is still no leak and no exception."""
        logger, out = logged
        raising, logging.raiseExceptions = logging.raiseExceptions, False
        try:
            logger.warning("%d is no number", "ana@example.com")
        finally:
            logging.raiseExceptions = raising
        assert "ana@" not in out.getvalue()

    def test_installed_by_the_first_scope(self) -> None:
        """From then on every logger of ours has the filter, later ones from the next scope on; others don't."""
        late, foreign = logging.getLogger("escalade.tests.late"), logging.getLogger("escalader")
        with scope():
            pass
        ours = [lg for n, lg in logging.Logger.manager.loggerDict.items() if n.startswith("escalade.")]
        assert late in ours
        for logger in ours:
            if isinstance(logger, logging.Logger):
                assert sum(isinstance(one, RedactingFilter) for one in logger.filters) >= 1, logger
        assert not foreign.filters
        install()
        assert sum(isinstance(one, RedactingFilter) for one in late.filters) == 1

    def test_nobody_listens(self) -> None:
        """Where an application configures no logging, warnings of ours are on standard error, once, redacted; they come
        out where it configures logging later, too.
        """
        code = """
import logging, logging.config, sys, escalade
logging.getLogger("escalade.x").warning("before any scope")
with escalade.scope():
    logging.getLogger("escalade.later").warning("to ana@example.com")
    logging.getLogger("escalade.later").info("too quiet")
out = {"h": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}}
logging.config.dictConfig({"version": 1, "handlers": out, "root": {"handlers": ["h"]}, "loggers": {"escalade": {}},
    "disable_existing_loggers": False})
with escalade.scope():
    logging.getLogger("escalade.even.later").warning("also to ana@example.com")
"""
        ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert ran.stderr.splitlines() == ["before any scope", "to <email>"]
        assert ran.stdout.splitlines() == ["also to <email>"]

    def test_on_a_handler(self, logged) -> None:
        """On a handler it redacts what other libraries log there."""
        logger, out = logging.getLogger("somebody.else"), io.StringIO()
        handler = logging.StreamHandler(out)
        handler.addFilter(RedactingFilter())
        logger.addHandler(handler)
        logger.error("key sk-abcdefghijklmnop1234567890")
        logger.removeHandler(handler)
        assert out.getvalue() == "key <api_key>\n"


def test_the_names_of_the_package() -> None:
    """What the package lists is there, and what isn't listed is an AttributeError."""
    assert all(getattr(privacy, name) is not None for name in privacy.__all__)
    assert not hasattr(privacy, "nonsense")
    assert set(privacy._HOME) == set(privacy.__all__)


def test_refusals_are_recorded_redacted() -> None:
    """A refusal that quotes its arguments is redacted in the journal."""
    from escalade.errors import EscaladeError
    from escalade.registry.guard import Resource, admit

    def check() -> None:
        raise EscaladeError("'ana.canary@example.com' is no number; see " + HOME + "/x.py")

    journal = Journal()
    with scope(recorder=journal, ledger=Ledger()), pytest.raises(EscaladeError):
        admit(Resource("r", "", "tool", "r:call"), ceiling=0, check=check)
    assert [entry.error for entry in journal.denials()] == ["'<email>' is no number; see <path>"]
