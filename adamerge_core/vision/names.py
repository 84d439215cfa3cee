"""Names from a user's files: as text that can be printed, and as class names.

Nothing here imports torch.
"""

import unicodedata
from collections.abc import Iterable

_LONGEST = 200  # characters of a class name: a prompt has 77 tokens


def barred_in_paths(path: str) -> str:
    """List the characters that a user's path must not have, as U+000A; empty where it has none.

    Characters of format are part of scripts: barred is what ends a line or is no character.
    """
    barred = [c for c in path if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    return ", ".join(f"U+{ord(each):04X}" for each in dict.fromkeys(barred))


def printable(name: str) -> str:
    r"""Write a name so that it can be printed on a line, and encoded as UTF-8.

    Characters that cannot be seen (control characters, line ends, marks of direction, bytes that
    are no UTF-8) become escapes such as \\n, \\x7f, \\u2028; all others stay.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in name)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # Python's stand-in for a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def class_name_faults(names: Iterable[object]) -> list[str]:
    """List what is wrong with class names, a line each.

    A class name is text of 1 to 200 printable characters without spaces around it, since it becomes
    a part of a prompt; and no two are the same to a reader (Unicode's normal form NFC).
    """
    faults, by_form = [], dict[str, list[str]]()
    for name in names:
        if not isinstance(name, str):
            faults.append(f"class {name!r}: is {type(name).__name__}; must be text")
            continue
        shown = printable(name)
        shown = shown if len(shown) <= _LONGEST else f"{shown[:60]}..."
        by_form.setdefault(unicodedata.normalize("NFC", name), []).append(name)
        if not name.strip() or name != name.strip():
            faults.append(f"class {shown!r}: must not be empty or have spaces around it; rename it")
        elif not name.isprintable():
            faults.append(
                f"class '{shown}': must be printable characters in UTF-8, as it becomes a part of "
                "a prompt; rename it"
            )
        elif len(name) > _LONGEST:
            faults.append(
                f"class '{shown}': has {len(name)} characters; must have at most {_LONGEST}"
            )
    faults += [
        f"class {form!r}: is spelled in {len(names)} ways that look the same (Unicode code points "
        f"{' and '.join(_code_points(name) for name in names)}); give one spelling to all"
        for form, names in by_form.items()
        if len(set(names)) > 1
    ]
    return faults


def _code_points(name: str) -> str:
    return " ".join(f"{ord(c):04X}" for c in name[:20])


def alike_but_for_case(names: Iterable[str]) -> list[list[str]]:
    """Group the names that differ in upper and lower case alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]
