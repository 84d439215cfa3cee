"""Names that come from data, class names and paths, as text that is shown and never acts."""

import re

# control characters and line ends, and what turns the direction of the text after it
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_MARKUP = re.compile(r"[\\`*\[\]|$~]|(?<!\w)_|_(?!\w)")


def plain(text: str) -> str:
    r"""Write characters that are not seen, or that reorder others, as escapes: `\x00`, `\u202e`."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def isolated(text: str) -> str:
    """Write a text so that its direction does not reorder what stands beside it."""
    return f"\u2068{text}\u2069" if not text.isascii() else text


def in_markdown(text: str) -> str:
    """Write a text so that Markdown, a table's cell of it too, shows it as it is."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, entity)
    return _MARKUP.sub(lambda found: f"\\{found[0]}", text)
