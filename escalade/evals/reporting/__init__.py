"""Reports: how what was found is shown.

    cells        how a value of each kind is written
    comparing    the rows of a comparison as one of the tables, each column explained
    terminal     tables, checks and sentences in a terminal
    markdown     for a pull request
    exporting    JSON, CSV, Parquet
    conditions   what must not be: `--fail-if "mine.quality < baseline - 2"`
    courses      which way each policy went on each question, and why
    page         `report.html`: one file, no network
    charts       its pictures, as SVG
    explaining   each column of each table, as the documentation has it

Renderers know tables, checks and sentences (`escalade.evals.findings`), and nothing of where they come from.
"""
