"""Pictures of pipelines: as Mermaid, as SVG, as a tree for the terminal; with what a run took and cost."""
