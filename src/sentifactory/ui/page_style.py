"""The look of the page: gradio's theme in the colours of all our pages, the style sheet and the scripts."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from sentifactory.ui.page_words import FONTS

# The project's colour, with enough contrast to white text (WCAG AA).
_TUNED, _TUNED_HOVER, _TUNED_DARK = "#0f766e", "#0b5e58", "#2ba597"


def build_theme(gradio: Any) -> Any:
    """Return gradio's theme."""
    theme = gradio.themes.Base(primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=("ui-monospace",))
    return theme.set(
        color_accent=_TUNED,
        button_primary_background_fill=_TUNED,
        button_primary_background_fill_hover=_TUNED_HOVER,
        button_primary_background_fill_dark=_TUNED,
        button_primary_background_fill_hover_dark=_TUNED_HOVER,
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        checkbox_background_color_selected=_TUNED,
        checkbox_border_color_selected=_TUNED,
        body_text_color_subdued="#475569",
        body_text_color_subdued_dark="#a3b1c2",
        block_label_text_color="#475569",
        block_label_text_color_dark="#a3b1c2",
        block_title_text_color="#334155",
        block_title_text_color_dark="#cbd5e1",
        input_placeholder_color="#5b6b80",
        input_placeholder_color_dark="#94a3b8",
        input_border_width="1px",
        input_border_color="#8a98a9",
        input_border_color_dark="#64748b",
        input_background_fill="#ffffff",
        link_text_color=_TUNED,
        link_text_color_dark=_TUNED_DARK,
    )


def write_head() -> str:
    """Return what the page's head gets: the style sheet, and the script that fits embedded reports into the page."""
    folder = files("sentifactory.ui") / "templates"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("ui.css", "page.js"))
    return f"<style>{style}</style><script>{script}</script>"
