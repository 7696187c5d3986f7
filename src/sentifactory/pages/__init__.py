"""What all pages share: the style of the house, the macro for two languages, and how templates are filled in."""
