"""Settings given as text, as a command line has them: `block.parameter=VALUE`, `worker=block`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any, cast

from pipeline.errors import FlowError
from pipeline.flow_parts import NAME


class BareWord(str):
    """A setting that is no TOML value: a text without its quotes, if the parameter is a text."""


def parse_setting(text: str) -> tuple[str, Any]:
    """Key and value of a setting "block.parameter=VALUE", whose value is TOML.

    What is no TOML value comes back as a BareWord, which `Flow.set` takes for a text where the
    parameter is one.

    >>> parse_setting("channel.snr_db=8.0")
    ('channel.snr_db', 8.0)
    """
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not re.fullmatch(r"\w+\.\w+", key):
        raise FlowError(
            f"setting {text!r}: write BLOCK.PARAMETER=VALUE, such as channel.snr_db=8.0"
        )
    if not value:
        raise FlowError(f"setting {text!r}: there is no value after '='; an empty text is \"\"")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (tomllib.TOMLDecodeError, RecursionError):
        parsed = {}
    return key, parsed["value"] if list(parsed) == ["value"] else BareWord(value)


def parse_worker(text: str) -> tuple[str, tuple[str, ...]]:
    """Name and blocks of "worker=block,block".

    >>> parse_worker("rx=detector,decoder")
    ('rx', ('detector', 'decoder'))
    """
    name, _, blocks = text.partition("=")
    names = tuple(block.strip() for block in blocks.split(","))
    if not NAME.fullmatch(name.strip()) or not all(NAME.fullmatch(block) for block in names):
        raise FlowError(f"worker {text!r}: write NAME=BLOCK,BLOCK, such as rx=detector")
    return name.strip(), names


def takes_text(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    """Whether a JSON schema lets a text through."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return takes_text(cast("Mapping[str, Any]", whole["$defs"][name]), whole)
    if any(takes_text(choice, whole) for choice in schema.get("anyOf", ())):
        return True
    choices = [*schema.get("enum", ()), schema.get("const")]
    return schema.get("type") == "string" or any(isinstance(choice, str) for choice in choices)


__all__ = ["BareWord", "parse_setting", "parse_worker", "takes_text"]
