"""`docs/settings.md` lists the settings as they are."""

from __future__ import annotations

from tools import settings_page


def test_the_page_is_up_to_date() -> None:
    assert settings_page.PAGE.read_text() == settings_page.page(), "run `make docs`"
