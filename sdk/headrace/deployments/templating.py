"""Placeholders as steps and `headrace.yaml` know them: those of `headrace.core.templating`."""

from __future__ import annotations

from headrace.core.templating import (
    KEEP,
    MISSING,
    Lookup,
    Placeholder,
    TemplateError,
    environment,
    find_placeholders,
    kept,
    outputs,
    resolve,
)

__all__ = [
    "KEEP",
    "MISSING",
    "Lookup",
    "Placeholder",
    "TemplateError",
    "environment",
    "find_placeholders",
    "kept",
    "outputs",
    "resolve",
]
