"""The five commands of the page on evals, one after the other, on the study that the page writes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from escalade.cli import main
from tests._house import ROOT
from tests.test_docs import PAGES, blocks

PAGE = ROOT / "docs" / "evals.md"


def test_five_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each ends with 0, and says what the page says that it says."""
    monkeypatch.chdir(tmp_path)
    listed = blocks(PAGE)
    study = next(block.text for block in listed if "study.yaml" in block.text).replace(":400", ":200")
    exec(study, {})  # noqa: S102 - our own page; half of the questions take half of the time
    console = next(block.text for block in listed if block.kind == "console")
    said = []
    for line in console.splitlines():
        assert main(shlex.split(line.removeprefix("$ escalade "), comments=True)) == 0, capsys.readouterr().err
        said.append(capsys.readouterr().out)
    assert len(said) == 5
    assert "threshold-0.9" in said[0]
    assert "What keeps policies from the oracle" in said[1]
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert "in the interval of the replay" in said[3]
    assert said[4] == said[0]


def test_every_page_of_evals_is_reached() -> None:
    """From the README and from the page on evals; and every heading that is linked to is there."""
    ours = {"metrics", "statistics", "traps", "data", "online", "reports", "studies", "learned"}
    for page in (ROOT / "README.md", PAGE):
        text = page.read_text("utf-8")
        assert {name for name in ours if f"{name}.md" not in text} == set()
    for page in PAGES:
        for path, anchor in re.findall(r"\]\(([\w./-]*\.md)#([\w-]+)\)", page.read_text("utf-8")):
            heads = re.findall(r"^#+ (.*)$", (page.parent / path).read_text("utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, (
                f"{path}#{anchor}"
            )
