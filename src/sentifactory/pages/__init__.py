"""What all HTML pages share: style sheet, base template, charts."""
