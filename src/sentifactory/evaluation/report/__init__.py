"""The report of a comparison as JSON, HTML page, Markdown, CSV tables and terminal output."""
