"""The report of a study: figures, tables and words in one self-contained HTML file."""
