"""Placeholders: what they become, and what becomes of those that nobody knows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.templating import (
    MISSING,
    TemplateError,
    environment,
    find_placeholders,
    kept,
    outputs,
    resolve,
)

VALUES: dict[str, Any] = {
    "image": "shop:1",
    "count": 3,
    "nothing": None,
    "build": {"image": "shop:2", "tags": ["a", {"deep": True}], "labels": {"team": "etl"}},
    "dotted.name": "whole",
}
LOOKUPS = (outputs(VALUES), environment({"HOME": "/home/ada", "EMPTY": ""}))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        pytest.param("plain", "plain", id="text"),
        pytest.param("{{ image }}", "shop:1", id="alone"),
        pytest.param("{{image}}", "shop:1", id="without spaces"),
        pytest.param("  {{ count }} ", 3, id="alone it keeps its type"),
        pytest.param("x{{ count }}", "x3", id="within text it is text"),
        pytest.param("{{ nothing }}", None, id="none is a value"),
        pytest.param("<{{ nothing }}>", "<>", id="none within text"),
        pytest.param("{{ build.labels }}", {"team": "etl"}, id="a mapping"),
        pytest.param("{{ build.tags[1].deep }}", True, id="a path"),
        pytest.param("{{ dotted.name }}", "whole", id="a name with a dot"),
        pytest.param("{{ build.tags[9] }}", MISSING, id="past the end"),
        pytest.param("{{ image.part }}", MISSING, id="a part of text"),
        pytest.param("{{ absent }}", MISSING, id="missing"),
        pytest.param("[{{ absent }}]", "[]", id="missing within text"),
        pytest.param("{{ $HOME }}/x", "/home/ada/x", id="environment"),
        pytest.param("{{ $EMPTY }}", "", id="set to nothing"),
        pytest.param("{{ $ABSENT }}", MISSING, id="not set"),
        pytest.param({"a": "{{ absent }}", "b": 1}, {"b": 1}, id="a key goes"),
        pytest.param(["{{ absent }}", "{{ image }}", 2.5], ["shop:1", 2.5], id="an item goes"),
        pytest.param({"a": {"b": ["{{ count }}"]}}, {"a": {"b": [3]}}, id="deep"),
        pytest.param("{{ not a name }}", "{{ not a name }}", id="no placeholder"),
        pytest.param("{ image }", "{ image }", id="one brace"),
    ],
)
def test_what_becomes_of_it(template: Any, expected: Any) -> None:
    assert resolve(template, *LOOKUPS) == expected


def test_what_is_left_out_of_a_text_is_said(caplog: pytest.LogCaptureFixture) -> None:
    resolve("a-{{ absent }}-b", *LOOKUPS)
    assert "{{ absent }}" in caplog.text and "a-{{ absent }}-b" in caplog.text


@pytest.mark.parametrize("name", ["build", "build.tags"])
def test_a_container_within_text_is_refused_by_name(name: str) -> None:
    with pytest.raises(TemplateError, match=name.replace(".", r"\.")):
        resolve(f"image {{{{ {name} }}}}", *LOOKUPS)


def test_some_are_left_for_others() -> None:
    lookups = (kept("ctx."), *LOOKUPS)
    template = ["{{ ctx.flow_run.name }}", "{{ ctx.flow.name }}-{{ image }}"]
    assert resolve(template, *lookups) == ["{{ ctx.flow_run.name }}", "{{ ctx.flow.name }}-shop:1"]


def test_they_are_found_however_deep() -> None:
    template = {"{{ a }}": [{"b": "x{{ b.c[0] }}{{ $D }}"}], "e": 1}
    assert [found.name for found in find_placeholders(template)] == ["a", "b.c[0]", "$D"]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text().filter(lambda text: "{{" not in text),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(PLAIN)
def test_what_has_no_placeholder_stays_as_it_is(value: Any) -> None:
    assert resolve(value, *LOOKUPS) == value
