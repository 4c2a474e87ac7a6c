"""What other frameworks add to bare asyncio, measured as we measure ourselves.

`python -m benchmarks.pipelines` prints the table, `python -m benchmarks.pipelines --behave` what becomes of the
siblings of a node that fails. Each framework has a module here, with the same five graphs built in its own idiom; those
that aren't installed (`pip install 'escalade[peers]'`) are skipped and named.
"""
