"""Publish a tuned model with a card made from its evidence; the same as `sentifactory publish`.

Example:
    python scripts/upload_to_hub.py saves/gemma-3-270m/freeze/demo --repo_id me/gemma-3-270m-sentiment --dry_run
"""

from sentifactory.cli import run_script
from sentifactory.publishing.commands import publish

if __name__ == "__main__":
    run_script(publish)
