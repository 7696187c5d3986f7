"""What the controls of the page do: each takes what a person chose and returns what is shown.

Nothing here knows of gradio, and nothing is opened by a path that a person gave: names are looked up among what this
machine offers, and files are those that the page's server has received.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.corpus.cleaning import clean_text
from sentifactory.corpus.readers import FILE_SUFFIXES
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Review
from sentifactory.training.encoder_recipe import is_encoder_recipe
from sentifactory.training.run_card import read_card
from sentifactory.ui import jobs, views
from sentifactory.ui.offers import OWN, OfferedRecipe, find_models, find_recipes, pick
from sentifactory.ui.wording import DEFAULT_LANGUAGE, LANGUAGES, say
from sentifactory.ui.workspace import Workspace, choose_name

MOST_TEXTS = 200
MOST_CHARS = 2000  # of one text


@dataclass(frozen=True, slots=True)
class PageActions:
    """The page without its controls.

    Attributes:
        workspace: where everything is written.
        model_roots: folders in which models are looked for, besides those that were trained here.
        recipe_roots: folders of recipes.
        models_lock: held while models are loaded and asked: two at once may be too much for the memory.
    """

    workspace: Workspace
    model_roots: tuple[Path, ...]
    recipe_roots: tuple[Path, ...]
    models_lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def find_models(self) -> dict[str, Path]:
        """Return the models by name: those trained here first, the newest of them on top."""
        own = find_models({OWN: self.workspace.models})
        return own | find_models({root.name: root for root in self.model_roots}, skipped=[self.workspace.root])

    def find_recipes(self) -> dict[str, OfferedRecipe]:
        """Return the recipes that can be run here, by name."""
        return find_recipes(self.recipe_roots)

    def list_data(self) -> list[str]:
        """Return the prepared data sets, the newest first."""
        return self.workspace.list_names(self.workspace.data)

    def list_reports(self) -> list[str]:
        """Return the comparisons, the newest first."""
        return self.workspace.list_names(self.workspace.reports)

    def predict(self, texts: str, base_model: str | None, tuned_model: str | None) -> str:
        """Return what two models say to texts, one a line; either may be left out.

        Raises:
            DataError: when there is no text, or too much of it.
            ConfigError: when there is no such model.
            EngineError: when one cannot be loaded.
        """
        from sentifactory.engines.side_by_side import answer_side_by_side

        reviews = split_texts(texts)
        models = self.find_models()
        sides = [(side, name) for side, name in (("base", base_model), ("tuned", tuned_model)) if name]
        chosen = [str(pick(models, name, "model")) for _, name in sides]
        with self.models_lock:
            rows = answer_side_by_side(reviews, chosen, None)
        return views.show_answers(rows, sides)

    def prepare(self, file: str | None, file_name: str, language: str = DEFAULT_LANGUAGE) -> tuple[str, str]:
        """Bring a file through the data gate; return its name as a data set, and its report.

        Raises:
            DataError: when the file cannot be used.
        """
        from sentifactory.corpus.inspected import load_inspected
        from sentifactory.corpus.inspection import draw_picture
        from sentifactory.corpus.picture import PictureOptions
        from sentifactory.corpus.prepare import prepare_reviews

        check_language(language)
        name = choose_name(self.workspace.data, file_name)
        source = self._keep(file, name)
        prepare_reviews(str(source), name=name, output_dir=self.workspace.data)
        data = load_inspected(name, dataset_dir=self.workspace.data)
        draw_picture(data, self.workspace.data_reports / f"{name}.html", PictureOptions())
        return name, self.show_data(name, language)

    def show_data(self, name: str | None, language: str = DEFAULT_LANGUAGE) -> str:
        """Return the report of a data set, "" where none is chosen."""
        check_language(language)
        if not name:
            return ""
        pick(dict.fromkeys(self.list_data()), name, "data set")
        page = (self.workspace.data_reports / f"{name}.html").read_text(encoding="utf-8")
        return views.show_report(self.workspace.hide_root(page), name, language)

    def start(self, data: str | None, recipe: str | None, model_name: str) -> str:
        """Start a training on a data set, and return its progress.

        Raises:
            ConfigError: when there is no such data set or recipe, or a training runs already.
        """
        pick(dict.fromkeys(self.list_data()), data, "data set")
        offered = pick(self.find_recipes(), recipe, "recipe")
        name = choose_name(self.workspace.jobs, model_name.strip() or f"{data}-{Path(str(recipe)).name}")
        settings = self.build_settings(offered, str(data))
        jobs.start_job(self.workspace, name, settings, {"data": str(data), "recipe": str(recipe)})
        return self.show_progress()

    def build_settings(self, offered: OfferedRecipe, data: str) -> dict[str, Any]:
        """Return the settings of a recipe on a data set of the workspace, in place of its own."""
        settings = dict(offered.recipe.settings)
        folder = self.workspace.data / data
        held_out = (folder / "val.csv").is_file()
        if is_encoder_recipe(offered.recipe):
            settings["dataset"] = str(folder / "train.csv")
            settings["eval_dataset"] = str(folder / "val.csv") if held_out else None
            if not held_out:
                settings["early_stopping_patience"] = 0
        else:
            settings |= {"dataset": f"{data}_train", "dataset_dir": str(self.workspace.data)}
            if settings.get("eval_dataset"):
                settings["eval_dataset"] = f"{data}_val"
            if settings.get("train_sampling_strategy") == "sequential":  # for data in an order that this has not
                settings["train_sampling_strategy"] = "group_by_length"
        return {key: value for key, value in settings.items() if value is not None}

    def stop(self) -> str:
        """Ask the training to end, and return its progress."""
        jobs.stop_job(self.workspace)
        return self.show_progress()

    def resume(self) -> str:
        """Go on with the training that was stopped or failed, and return its progress."""
        jobs.resume_job(self.workspace)
        return self.show_progress()

    def show_progress(self) -> str:
        """Return how far the newest training has come."""
        return self.workspace.hide_root(views.show_progress(jobs.find_job(self.workspace)))

    def compare(
        self,
        base_model: str | None,
        tuned_model: str | None,
        file: str | None,
        data: str | None,
        max_samples: int = 0,
        language: str = DEFAULT_LANGUAGE,
    ) -> tuple[str, str]:
        """Compare two models on a file, or on the test part of a data set; return the report's name and the report.

        Raises:
            ConfigError: when there is no such model or data set.
            DataError: when the file cannot be used, or training has seen its reviews.
            EngineError: when a model cannot be run.
        """
        from sentifactory.evaluation.compare import CompareOptions, compare_on, read_reviews

        check_language(language)
        models = self.find_models()
        base, tuned = (str(pick(models, name, "model")) for name in (base_model, tuned_model))
        test, train = self._find_test(file, data)
        name = choose_name(self.workspace.reports, f"{Path(str(tuned_model)).name}-{test.stem}")
        options = CompareOptions(
            csv_path=str(test),
            base_model=base,
            finetuned_model=tuned,
            output_file=str(self.workspace.reports / name / "report.json"),
            max_samples=max_samples or None,
            engine="auto",
            mode="score",
            train_csv=str(train) if train else None,
        )
        reviews = read_reviews(options)  # however long that takes, predictions go on
        with self.models_lock:
            compare_on(reviews, options)
        return name, self.show_report(name, language)

    def _find_test(self, file: str | None, data: str | None) -> tuple[Path, Path | None]:
        """Return the test reviews, and the training reviews where they are known."""
        if file:
            return self._keep(file, f"test-{Path(file).stem}"), None
        pick(dict.fromkeys(self.list_data()), data, "data set")
        folder = self.workspace.data / str(data)
        return folder / "test.csv", folder / "train.csv"

    def show_report(self, name: str | None, language: str = DEFAULT_LANGUAGE) -> str:
        """Return an earlier report of a comparison, "" where none is chosen."""
        check_language(language)
        if not name:
            return ""
        pick(dict.fromkeys(self.list_reports()), name, "report")
        page = (self.workspace.reports / name / "report.html").read_text(encoding="utf-8")
        return views.show_report(self.workspace.hide_root(page), say("report", language), language)

    def show_card(self, model: str | None) -> str:
        """Return the run card of a model, "" where none is chosen."""
        if not model:
            return ""
        folder = pick(self.find_models(), model, "model")
        return self.workspace.hide_root(views.show_card(model, read_card(folder)))

    def _keep(self, file: str | None, name: str) -> Path:
        """Copy a file that was received into the workspace.

        Raises:
            DataError: when there is none, or its kind cannot be read.
        """
        if not file or Path(file).suffix.lower() not in FILE_SUFFIXES:
            raise DataError(
                f"{Path(file).suffix or 'A file without an ending'} cannot be read" if file else "No file is chosen",
                expected=f"a file with one of the endings {', '.join(sorted(FILE_SUFFIXES))}",
            )
        return self.workspace.keep_upload(file, name)


def split_texts(texts: str) -> list[Review]:
    """Return the reviews that were typed, one a line.

    Raises:
        DataError: when there is none, or there are too many or too long ones.
    """
    lines = [line.strip() for line in texts.splitlines() if clean_text(line)[0]]
    longest = max(map(len, lines), default=0)
    if not lines or len(lines) > MOST_TEXTS or longest > MOST_CHARS:
        raise DataError(
            f"There are {len(lines)} reviews, the longest of {longest} characters",
            expected=f"1 to {MOST_TEXTS} reviews of up to {MOST_CHARS} characters, one a line",
            next_step="use `sentifactory label` for more",
        )
    return [Review(line) for line in lines]


def check_language(language: str) -> None:
    """Refuse a language that the page does not have; raises ConfigError."""
    if language not in LANGUAGES:
        raise ConfigError(f"There is no language {language!r}", expected=", ".join(LANGUAGES))
