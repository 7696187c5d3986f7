#!/usr/bin/env python
"""Write measured figures into the guides: memory by recipe, from dry runs, and the ladder of models.

Example:
    python scripts/write_figures.py --memory --ladder saves/ladder/ladder.json
"""

from sentifactory.cli import run_script
from sentifactory.guides.figures import write_figures

if __name__ == "__main__":
    run_script(write_figures)
