"""Colours of the page and the pictures, by role; each is readable on its background."""

from __future__ import annotations

LIGHT = {
    "page": "#ffffff",
    "panel": "#f5f6f7",
    "text": "#16191d",
    "muted": "#5d6671",
    "faint": "#a7afb9",
    "line": "#e3e6ea",
    "accent": "#0b7a75",
    "other": "#5b7fb8",
    "stop": "#b7791f",
    "bad": "#c2362b",
}
DARK = {
    "page": "#121417",
    "panel": "#1b1e23",
    "text": "#e8eaed",
    "muted": "#9ca5b1",
    "faint": "#5f6874",
    "line": "#2c3138",
    "accent": "#3fc7bd",
    "other": "#86a8df",
    "stop": "#e0ad5a",
    "bad": "#f07a6d",
}
# One a source of the mixture, used again from the start where there are more; seen on both pages.
SOURCES = ("#2a9d8f", "#e9a23b", "#7a6fd0", "#d1605e", "#4f9bd9", "#8fb339", "#b873a9", "#8c8c8c")


def css_variables(colours: dict[str, str]) -> str:
    """The colours as CSS custom properties, one a line."""
    return "\n".join(f"  --{role}: {colour};" for role, colour in colours.items())


def root_style() -> str:
    """The custom properties of the light page, and of the dark one where the reader prefers it."""
    return (
        f":root {{\n{css_variables(LIGHT)}\n}}\n"
        f"@media (prefers-color-scheme: dark) {{\n:root {{\n{css_variables(DARK)}\n}}\n}}"
    )
