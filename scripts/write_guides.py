"""Write the pages under `contexts/` that are made from the code: all commands, and all messages of errors.

Example:
    python scripts/write_guides.py
"""

from pathlib import Path

from sentifactory.cli import build_app, run_guarded
from sentifactory.guides.writing import write_pages

if __name__ == "__main__":
    folder = Path(__file__).resolve().parents[1] / "contexts"
    run_guarded(lambda: print("Written:", ", ".join(write_pages(build_app(), folder)) or "nothing has changed"))
