"""CodeAct takes no governed tools: it copies the source of each tool into its sandbox, where no guard stands.

DSPy 3.4 deprecates CodeAct and 3.5 removes it; `dspy.RLM`, whose code calls tools on this side, takes its place.
"""

from __future__ import annotations

import functools
from typing import Any

from escalade.errors import BadInput

GOVERNED = "__escalade_tool__"
"""The attribute of a governed function that names its tool."""


def refuse() -> None:
    """Let CodeAct refuse governed tools where it is made. Once per process; nothing to do where there is no CodeAct."""
    import dspy

    kind = getattr(dspy, "CodeAct", None)
    if kind is None or getattr(kind.__init__, GOVERNED, None):
        return
    make = kind.__init__

    @functools.wraps(make)
    def checked(self: Any, signature: Any, tools: Any, *args: Any, **kwargs: Any) -> None:
        for tool in tools:
            label = getattr(getattr(tool, "func", tool), GOVERNED, None)
            if label is not None:
                raise BadInput(
                    f"CodeAct copies the source of its tools into a sandbox, where no guard stands: "
                    f"it can't have the governed tool {label}; dspy.RLM can, and so can ReAct and ReActV2"
                )
        make(self, signature, tools, *args, **kwargs)

    setattr(checked, GOVERNED, "checked")
    kind.__init__ = checked
