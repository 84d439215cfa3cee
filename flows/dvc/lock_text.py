"""The text of dvc.lock, stage by stage: what did not change is neither parsed nor written again.

A stage's entry lists all code that it reads, so a project with some suites has megabytes of it, and
DVC parses and writes all of it at the end of every stage, for seconds.
"""

import io
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ruamel.yaml import YAML

from tasks.graph.dvc_lock import DVC_LOCK

_HEAD = "schema: '2.0'\nstages:\n"
_STAGE = re.compile(r"^  (?=\S)", re.MULTILINE)
_UNUSUAL = re.compile(r"^(?! )(?!$)|^  [?:#%-]|(?<![^\s])[&*]id\d", re.MULTILINE)
"""What stages cannot be told apart with by their indentation, or what reaches from one to another:
further sections, keys of several lines, comments, anchors. Such a file is taken as a whole."""


class LockText:
    """dvc.lock as this process last parsed it."""

    def __init__(self, parse_yaml: Callable[[str, str], Any]) -> None:
        """parse_yaml: DVC's own, of a text and the path that an error names."""
        self._parse_yaml = parse_yaml
        self._parsed: dict[str, tuple[str, Any]] = {}
        """By a stage's text, without the indentation of its first line, its name and entry."""

    def parse(self, text: str) -> dict[str, Any]:
        """Parse a text; the entries of stages whose text is known are the same objects as before.

        Raises DVC's error where it is no YAML.
        """
        stages = text.removeprefix(_HEAD)
        if stages == text or _UNUSUAL.search(stages):
            return self._whole(text)
        start, *blocks = _STAGE.split(stages)
        new = [block for block in dict.fromkeys(blocks) if block not in self._parsed]
        if new:
            found = self._parse_yaml(f"{_HEAD}  {'  '.join(new)}", str(DVC_LOCK))["stages"]
            if start or len(found) != len(new):
                return self._whole(text)
            self._parsed |= dict(zip(new, found.items(), strict=True))
        self._parsed = {block: self._parsed[block] for block in blocks}
        return {"schema": "2.0", "stages": dict(self._parsed.values())}

    def _whole(self, text: str) -> dict[str, Any]:
        self._parsed = {}
        return dict(self._parse_yaml(text, str(DVC_LOCK)))

    def dump(self, content: dict[str, Any]) -> str:
        """Write a content: the same bytes as all of it written at once."""
        if content.keys() != {"schema", "stages"} or not content["stages"]:
            return _dump(content)
        texts = {id(entry): (name, block) for block, (name, entry) in self._parsed.items()}
        parts = []
        for name, entry in content["stages"].items():
            known, block = texts.get(id(entry), (None, ""))
            if known != name:
                block = _dump({"schema": "2.0", "stages": {name: entry}}).removeprefix(_HEAD)[2:]
            parts.append(f"  {block}")
        return _HEAD + "".join(parts)


def _dump(content: dict[str, Any]) -> str:
    yaml, text = YAML(typ="safe"), io.StringIO()
    for option in ("default_flow_style", "sort_base_mapping_type_on_output"):
        setattr(yaml, option, False)  # ruamel types them as None
    yaml.representer.add_representer(OrderedDict, type(yaml.representer).represent_dict)
    yaml.dump(content, text)
    return text.getvalue()
