"""Every relative link of the documentation leads to a file, and every anchor to a heading."""

from __future__ import annotations

import pathlib
import re

import pytest

from tests.support.tools import ROOT

EXAMPLES = [page for page in (ROOT / "examples").rglob("*.md") if "node_modules" not in page.parts]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *EXAMPLES]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    broken = [target for target in _targets(page) if not _exists(page, target)]
    assert broken == []


def _targets(page: pathlib.Path) -> list[str]:
    prose = FENCE.sub("", page.read_text())
    targets = [link["target"] for link in LINK.finditer(prose)]
    return [target for target in targets if "://" not in target and not target.startswith("mailto:")]


def _exists(page: pathlib.Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    found = (page.parent / path).resolve() if path else page
    return found.exists() and (not anchor or anchor in _anchors(found))


def _anchors(page: pathlib.Path) -> set[str]:
    headings = [heading["text"].lower() for heading in HEADING.finditer(page.read_text())]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}
