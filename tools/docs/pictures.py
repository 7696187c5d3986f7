"""Takes the pictures of README and guides anew: the demo's report, and the web page with answers of the demo's models.

Needs Chromium, and what `make demo` leaves under saves/.

Example:
    python -m tools.docs.pictures
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.cli import run_script
from sentifactory.errors import ConfigError
from sentifactory.system.progress import say
from tools.docs.chromium import open_browser
from tools.docs.served_page import serve_page

WIDTH, HEIGHT = 1280, 900
MARGIN = 24  # pixels below the last part that is shown
PATIENCE_MS = 300_000  # loading two models on a busy CPU takes minutes
TEXTS = "房间干净，服务也好，下次还来\n等了两个小时才送到，菜都凉了\n书不错，就是包装太差，封面都折了"


def take_pictures(
    report: Annotated[Path, typer.Option("--report", help="HTML report of the demo.")] = Path(
        "saves/demo/report.html"
    ),
    models: Annotated[Path, typer.Option("--models", help="Folder of the demo's models.")] = Path("saves"),
    output_dir: Annotated[Path, typer.Option("--output_dir", help="For the pictures.")] = Path("contexts/images"),
) -> None:
    """Take the pictures of README and guides anew, from the report and the models of the last `make demo`."""
    if not report.is_file():
        raise ConfigError("There is no report", where=str(report), next_step="run make demo first")
    with tempfile.TemporaryDirectory() as scratch, open_browser() as browser:
        for name, take in (("demo_report", _show_report), ("page", _show_page)):
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, locale="en-GB", color_scheme="light")
            page.set_default_timeout(PATIENCE_MS)
            taken = Path(scratch) / f"{name}.png"
            take(page, report, models, taken)
            page.close()
            output_dir.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(taken, output_dir / taken.name)
            say(f"{output_dir / taken.name}")


def _show_report(page: Any, report: Path, models: Path, picture: Path) -> None:
    """Show a report's first screen, down to the end of its first table."""
    page.goto(report.resolve().as_uri())
    page.locator("label[for=choose-en]").click()
    table = page.locator("table").first.bounding_box()
    height = table["y"] + table["height"] + MARGIN
    page.screenshot(path=picture, full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})


def _show_page(page: Any, report: Path, models: Path, picture: Path) -> None:
    """Show the web page with the answers of base and tuned model to three reviews."""
    with (
        tempfile.TemporaryDirectory() as workspace,
        serve_page(workspace, "--models", str(models)) as address,
    ):
        page.goto(address)
        page.locator("#texts textarea").fill(TEXTS)
        page.locator("#ask").click()
        page.locator("#answers table").first.wait_for()
        page.wait_for_timeout(1000)  # fonts, and the end of gradio's fading
        answers = page.locator("#answers").bounding_box()
        height = answers["y"] + answers["height"] + MARGIN
        page.screenshot(path=picture, full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})


if __name__ == "__main__":
    run_script(take_pictures)
