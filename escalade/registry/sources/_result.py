"""What an MCP server's tool gave, as a plain value: what a model reads and code can use."""

from __future__ import annotations

import json
from typing import Any

from escalade.errors import ToolError
from escalade.registry.sources._wire import TOO_LARGE


def plain(result: Any, validator: Any, largest: int) -> Any:
    """The structured result where there is one, else the text, else a list of text and of what else came.

    Binary content is described, not handed on. Raises ToolError for an error of the tool, a result that isn't what the
    pinned definition promises, and one of more than `largest` bytes.
    """
    if result.is_error:
        raise ToolError(next((block.text for block in result.content if block.type == "text"), "it failed"))
    structured = result.structured_content
    if validator is not None and not validator.is_valid(structured):
        raise ToolError("the server's result isn't what its output schema promises")
    value = structured if structured is not None else _content(result.content)
    if len(value if isinstance(value, str) else json.dumps(value)) > largest:
        raise ToolError(f"{TOO_LARGE} {largest:,} bytes; ask for less")
    return value


def _content(blocks: list[Any]) -> Any:
    values = [_block(block) for block in blocks]
    if all(isinstance(value, str) for value in values):
        return "\n".join(values)
    return values


def _block(block: Any) -> Any:
    if block.type == "text":
        return block.text
    if block.type == "resource" and getattr(block.resource, "text", None) is not None:
        return block.resource.text
    described = {"type": block.type, "mime_type": getattr(block, "mime_type", None)}
    if block.type == "resource_link":
        described |= {"uri": str(block.uri), "name": block.name}
    if getattr(block, "data", None) is not None:
        described["bytes"] = len(block.data) * 3 // 4
    return {name: value for name, value in described.items() if value is not None}
