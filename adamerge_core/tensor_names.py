"""Names of tensors in one model: text, and none taken for another."""

import unicodedata
from collections.abc import Iterable


def name_faults(names: Iterable[object]) -> list[str]:
    """List what keeps names from telling the tensors of a model apart, a line each.

    Faults: a name that is no text, that UTF-8 cannot hold, or that Unicode takes for another one
    (the same under normalisation NFC), such as an accent as one character and as two.
    """
    faults: list[str] = []
    known: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str):
            faults.append(f"name {_short(name)} is {type(name).__name__}: names must be text (str)")
            continue
        if not name.isascii():
            try:
                name.encode()
            except UnicodeEncodeError:
                faults.append(f"name {_short(name)} has a lone surrogate: names must be UTF-8")
                continue
        composed = name if name.isascii() else unicodedata.normalize("NFC", name)
        if composed in known:
            faults.append(f"names {_short(known[composed])} and {_short(name)} are one to Unicode")
        known[composed] = name
    return faults


def _short(name: object) -> str:
    text = ascii(name)
    return text if len(text) <= 100 else f"{text[:100]}..."
