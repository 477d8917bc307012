"""Markdown that GitHub and the site show alike, and JSON Schema in words. Pure text; knows nothing of this project."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Schema = Mapping[str, Any]


class Field(NamedTuple):
    """One field of a document, by its path: `status.attempts[].phase`."""

    path: str
    schema: Schema
    is_required: bool


def code(text: object) -> str:
    """As typed. A pipe would end a table's cell, and the two renderers do not agree on how to escape it there."""
    shown = str(text).strip("\n")
    if not set("|`\n") & set(shown):
        return f"`{shown}`"
    return f"<code>{html.escape(shown, quote=False).replace('|', '&#124;').replace(chr(10), '<br>')}</code>"


def prose(text: str) -> str:
    """A docstring, help text or description on one line: code stays code, and nothing else is taken for HTML."""
    parts = re.split(r"(`+[^`]+`+)", " ".join(text.split()))
    return "".join(
        code(part.strip("`")) if index % 2 else part.replace("<", "&lt;").replace("|", "\\|")
        for index, part in enumerate(parts)
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, without the columns that have nothing to say; no text at all without rows."""
    if not rows:
        return ""
    kept = [index for index in range(len(head)) if any(row[index] for row in rows)]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line[index] for index in kept) + " |" for line in lines)


def page(*parts: str) -> str:
    """Blocks with an empty line between them; empty ones are left out."""
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def fields(schema: Schema, path: str = "") -> Iterator[Field]:
    """Every named field below an object, those of what it holds included, in the order of the schema."""
    required = schema.get("required", ())
    for name, inner in schema.get("properties", {}).items():
        whole = f"{path}.{name}".lstrip(".")
        yield Field(whole, inner, name in required)
        yield from fields(inner, whole)
        yield from fields(inner.get("items", {}), f"{whole}[]")


def kind(schema: Schema) -> str:
    """What a value must be: ``integer, 0 to 65535``, ``list of 16 at most: text``."""
    variants = [item for item in (*schema.get("anyOf", ()), *schema.get("oneOf", ())) if item.get("type") != "null"]
    if variants:
        return " or ".join(kind(item) for item in variants)
    if "const" in schema or "enum" in schema:
        return " or ".join(code(item) for item in schema.get("enum", (schema.get("const"),)))
    types = schema.get("type", "anything")
    names = [types] if isinstance(types, str) else types
    return " or ".join(_word(name, schema) for name in names) + _bounds(schema)


def _word(name: str, schema: Schema) -> str:
    if name == "array":
        limit = f" of {schema['maxItems']} at most" if "maxItems" in schema else ""
        return f"list{limit}: {kind(schema.get('items', {}))}"
    if name == "object" and schema.get("additionalProperties"):
        return f"object: {kind(schema['additionalProperties'])}"
    if name == "string":
        return "time (RFC 3339)" if schema.get("format") == "date-time" else "text"
    return name


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    told = [
        f"{_number(low)} to {_number(high)}" if low is not None and high is not None else "",
        f"{_number(low)} or more" if low is not None and high is None else "",
        f"{_number(high)} or less" if high is not None and low is None else "",
        f"above {_number(schema['exclusiveMinimum'])}" if "exclusiveMinimum" in schema else "",
        f"below {_number(schema['exclusiveMaximum'])}" if "exclusiveMaximum" in schema else "",
        f"{schema['minLength']} characters or more" if "minLength" in schema else "",
        f"{schema['maxLength']} characters at most" if "maxLength" in schema else "",
        f"matching {code(schema['pattern'])}" if "pattern" in schema else "",
    ]
    return "".join(f", {item}" for item in told if item)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
