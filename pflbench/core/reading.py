"""What is read from files of others: YAML and JSON, strictly, no more of it than a limit; every fault is one BadInput."""

import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

from pflbench.core.errors import BadInput, printable

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from yaml.nodes import Node

LARGEST_YAML = 2**20  # bytes
LARGEST_JSON = 2**30  # bytes
MOST = 100_000  # values in a YAML file
DEEPEST = 20  # lists and mappings inside each other
WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
NOTHING = ("", "~", "null", "Null", "NULL")
WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,99})")
PADDED = re.compile(r"[-+]?0[0-9_]+")  # 010 is 8 to YAML 1.1, 10 to YAML 1.2
BROKEN = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,9})?")
ENDLESS = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}


def read_bytes(file: "Path | Traversable", largest: int, field: str) -> bytes:
    """All of ``file``. Raises BadInput naming ``field`` if it cannot be read or has more than ``largest`` bytes."""
    try:
        with file.open("rb") as opened:
            content: bytes = opened.read(largest + 1)
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise BadInput(field, file, f"cannot be read: {reason}") from None
    if len(content) > largest:
        raise BadInput(field, file, f"has more than {largest >> 20} MiB; that is no such file")
    return content


def read_yaml(file: "Path | Traversable", field: str = "file") -> dict[str, Any]:
    """A mapping read from a YAML file. Raises BadInput naming ``field``, the place in the file and what is allowed.

    Words and numbers are those of YAML 1.2: only ``true`` and ``false`` are truth values, ``yes`` is text. Refused are
    what can be read in two ways, a doubled key and ``010``; keys that are no text; tags and deep nesting.
    """
    import yaml

    content = read_bytes(file, LARGEST_YAML, field)
    try:
        value = _built(_nodes(content.decode("utf-8")), (), count())
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BadInput(field, file, f"is not YAML that can be used: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise BadInput(field, file, "must hold `field: value` lines")
    return value


def read_json(file: Path, field: str, cure: str) -> Any:
    """What a JSON file holds. Raises BadInput naming ``field`` and the ``cure``. NaN and doubled keys are refused."""
    content = read_bytes(file, LARGEST_JSON, field)
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_single)
    except (ValueError, RecursionError) as error:
        raise BadInput(field, file, f"is corrupt ({type(error).__name__}: {error}); {cure}") from None


def clean(value: Any) -> Any:
    """A JSON value without control characters in any of its texts, so that none reaches a terminal."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(name): clean(item) for name, item in value.items()}
    return [clean(item) for item in value] if isinstance(value, list) else value


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is no number")


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key is there twice")
    return values


def _nodes(text: str) -> "Node | None":
    """The tree of a YAML document, nothing in it interpreted."""
    from yaml.composer import Composer
    from yaml.parser import Parser
    from yaml.reader import Reader
    from yaml.resolver import BaseResolver
    from yaml.scanner import Scanner

    class Plain(Reader, Scanner, Parser, Composer, BaseResolver):
        def __init__(self) -> None:
            Reader.__init__(self, text)
            Scanner.__init__(self)
            Parser.__init__(self)
            Composer.__init__(self)
            BaseResolver.__init__(self)
            self.depth = 0

        def compose_node(self, parent: "Node | None", index: Any) -> "Node | None":
            event = self.peek_event()  # type: ignore[no-untyped-call]
            line = event.start_mark.line + 1
            if getattr(event, "tag", None) is not None:
                raise ValueError(f"line {line}: tags like {event.tag} are not used here")
            self.depth += 1
            if self.depth > DEEPEST:
                raise ValueError(f"line {line}: more than {DEEPEST} lists or mappings inside each other")
            node: Node | None = super().compose_node(parent, index)
            self.depth -= 1
            return node

    return Plain().get_single_node()


def _built(node: "Node | None", above: tuple["Node", ...], count: Iterator[int]) -> Any:
    """What a node stands for. above: the nodes that it is in; count: of values so far, aliases each time they are used."""
    from yaml.nodes import MappingNode, ScalarNode, SequenceNode

    if node is None:
        return None
    line = f"line {node.start_mark.line + 1}"
    if node in above or len(above) > DEEPEST:
        raise ValueError(f"{line}: more than {DEEPEST} lists or mappings inside each other")
    if next(count) >= MOST:
        raise ValueError(f"{line}: more than {MOST} values")
    inside = (*above, node)
    if isinstance(node, ScalarNode):
        return _scalar(node.value, line) if node.style is None else node.value
    if isinstance(node, SequenceNode):
        return [_built(item, inside, count) for item in node.value]
    assert isinstance(node, MappingNode)
    found: dict[str, Any] = {}
    for name, value in node.value:
        key, place = _built(name, inside, count), f"line {name.start_mark.line + 1}"
        if not isinstance(key, str):
            raise ValueError(f"{place}: the key {key} is no text; write it in quotes if it is meant")
        if key in found:
            raise ValueError(f"{place}: the key {key} is there twice")
        found[key] = _built(value, inside, count)
    return found


def _scalar(text: str, line: str) -> Any:
    """A word without quotes: null, a truth value, a number or text."""
    if text in NOTHING:
        return None
    if text in WORDS:
        return WORDS[text]
    if PADDED.fullmatch(text):
        raise ValueError(
            f"{line}: {text} may be read in two ways; write the number without leading zeros, or in quotes"
        )
    if WHOLE.fullmatch(text):
        return int(text)
    if BROKEN.fullmatch(text):
        return float(text)
    return float(ENDLESS[text.lower()]) if text.lower() in ENDLESS else text
