"""Sphinx's configuration: `make docs` builds the site from docs/ and the package's docstrings."""

import inspect
import pkgutil
import re
import sys
from typing import Any, TypeVar

from sphinx.application import Sphinx

import adamerge_core.merging

project = "adamerge"
author = "the adamerge authors"
extensions = ["sphinx.ext.autodoc", "myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "adamerge"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
smartquotes = False  # code in running text stays code
highlight_language = "none"

# links between pages name files, as on a code host; headings get the anchors that it gives them
myst_heading_anchors = 3
# a new rule is one file of the package, and is in the reference without another line
myst_enable_extensions = ["substitution"]
_RULE_MODULES = [module.name for module in pkgutil.iter_modules(adamerge_core.merging.__path__)]
_RULE_MODULES.remove("registry")
_SECTIONS = [
    f".. rubric:: {name}\n\n.. automodule:: adamerge_core.merging.{name}\n"
    for name in _RULE_MODULES
]
myst_substitutions = {"rule_modules": "\n".join(["```{eval-rst}", *_SECTIONS, "```"])}

autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

nitpicky = True
# other projects' names are not looked up: the build needs no network
nitpick_ignore = [  # in signatures, and of no use by themselves
    ("py:class", "adamerge_core.checkpoints.tensor_files.TensorFile"),
    ("py:class", "adamerge_core.vision.datasets.published_source.Table"),
]
nitpick_ignore_regex = [(r"py:.*", r"(?!adamerge_core\.).*")]


def _as_rest(app: Sphinx, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Make reST of a docstring in plain text: what reads well in the source reads well here.

    Backticks become literals, as do parameters where a colon follows; lines indented by four are
    formulas, kept as they stand; all else that means something to reST is escaped.
    """
    parameters = _parameters(item)
    result: list[str] = []
    in_formula = False
    for line in lines:
        is_formula = line.startswith("    ")
        if is_formula != in_formula:
            result += ["", "::", ""] if is_formula else [""]
        result.append(line if is_formula else _line_as_rest(line, parameters))
        in_formula = is_formula
    lines[:] = result


def _parameters(item: Any) -> list[str]:
    try:
        return list(inspect.signature(item).parameters)
    except (TypeError, ValueError):  # no function or class
        return []


def _line_as_rest(line: str, parameters: list[str]) -> str:
    names = "|".join(map(re.escape, parameters)) or "(?!)"
    line = re.sub(rf"(?<![\w.`])({names}):(?=\s|$)", r"`\1`:", line)
    parts = re.split(r"`([^`]*)`", line)
    parts[::2] = [re.sub(r"([\\*|_])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part}``" for part in parts[1::2]]
    return "".join(parts)


def _is_type_variable(app: Sphinx, domain: Any, node: Any) -> bool | None:
    """Let the type variables of signatures be: they have no entry to link to."""
    module, _, name = node["reftarget"].rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return True if isinstance(found, TypeVar) else None


def setup(app: Sphinx) -> None:
    app.connect("warn-missing-reference", _is_type_variable)
    app.connect("autodoc-process-docstring", _as_rest)
