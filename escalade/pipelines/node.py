"""Options of a node: a name, a timeout, a budget."""

from escalade.pipelines._node import Node, node

__all__ = ["Node", "node"]
