"""The actions of the page's controls, without gradio: each takes the user's choices and returns what is shown.

No path from a user is opened: names are looked up among the models, recipes and data sets of this machine, and files
are uploads that the page's server has received.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sentifactory.corpus.files.open_file import FILE_SUFFIXES
from sentifactory.errors import ConfigError
from sentifactory.task.model_folder import read_model_task
from sentifactory.task.task import Task
from sentifactory.task.task_choice import choose_task
from sentifactory.ui import training_jobs, views
from sentifactory.ui.column_guesses import LabelWords
from sentifactory.ui.compatibility import explain_recipe
from sentifactory.ui.error_sentences import PageError
from sentifactory.ui.model_choices import OWN, OfferedRecipe, find_models, find_recipes, pick
from sentifactory.ui.offered_tasks import FileTasks, OfferedTask, choose_tasks, find_tasks
from sentifactory.ui.page_words import DEFAULT_LANGUAGE, LANGUAGES, WORDS, say
from sentifactory.ui.pasted_texts import split_texts
from sentifactory.ui.prepared_data import convert_test_file, find_data, find_missing_part, keep_upload, prepare_upload
from sentifactory.ui.training_settings import build_settings
from sentifactory.ui.uploaded_file import FileChoices, UploadedFile, inspect_upload
from sentifactory.ui.workspace import Workspace, choose_name, keep_if_filled, list_newest, reserve_folder


@dataclass(frozen=True, slots=True)
class PageActions:
    """The actions of the page.

    Attributes:
        workspace: where everything is written.
        model_roots: folders with models, besides those trained on the page.
        recipe_roots: folders of recipes and tasks.
        data_roots: folders with prepared data sets, besides those prepared on the page.
        models_lock: held while models are loaded and used: two at once may exceed the memory.
    """

    workspace: Workspace
    model_roots: tuple[Path, ...]
    recipe_roots: tuple[Path, ...]
    data_roots: tuple[Path, ...] = ()
    models_lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def find_models(self) -> dict[str, Path]:
        """Return the models by name, the newest first."""
        roots = {OWN: self.workspace.models} | {root.name: root for root in self.model_roots}
        return find_models(roots, skipped=[self.workspace.root])

    def find_recipes(self) -> dict[str, OfferedRecipe]:
        """Return the recipes whose model is on this machine, by name."""
        return find_recipes(self.recipe_roots)

    def find_tasks(self) -> dict[str, OfferedTask]:
        """Return the tasks by name: those that are built in, of the recipes' folders, and made on the page."""
        return find_tasks([*self.recipe_roots, self.workspace.tasks])

    def find_data(self) -> dict[str, Path]:
        """Return the prepared data sets by name, the newest first."""
        return find_data(self.workspace, self.data_roots)

    def find_model_task(self, model: str | None) -> Task | None:
        """Return the task of a model; None where its folder does not say."""
        folder = self.find_models().get(model or "")
        return None if folder is None else read_model_task(folder)

    def list_reports(self) -> list[str]:
        """Return the finished comparisons, the newest first."""
        return [folder.name for folder in list_newest(self.workspace.reports, "report.html")]

    def predict(self, texts: str, base_model: str | None, tuned_model: str | None) -> str:
        """Return the predictions of two models for texts, one per line; either model may be left out.

        Raises:
            ConfigError: when there is no text, too much text, no such model, or two models of different tasks.
            EngineError: when one cannot be loaded.
        """
        from sentifactory.engines.side_by_side import answer_side_by_side

        reviews = split_texts(texts or "")
        models = self.find_models()
        sides = [(side, name) for side, name in (("base", base_model), ("tuned", tuned_model)) if name]
        chosen = [str(pick(models, name, "model")) for _, name in sides]
        if not chosen or len(set(chosen)) < len(chosen):
            raise PageError(*WORDS["two_models" if chosen else "no_model"], code="models-chosen")
        with self.models_lock:
            rows = answer_side_by_side(reviews, chosen, None)
        return views.show_answers(rows, sides)

    def prepare(
        self, file: str | None, file_name: str, language: str = DEFAULT_LANGUAGE, choices: FileChoices | None = None
    ) -> tuple[str, str]:
        """Prepare a data set from a file; return its name and its report.

        Raises:
            DataError: when the file cannot be used.
            ConfigError: when a choice does not fit it.
        """
        from sentifactory.corpus.inspection.data_profile import ProfileOptions
        from sentifactory.corpus.inspection.inspect_data import write_data_page
        from sentifactory.corpus.inspection.loaded_data import load_inspected

        check_language(language)
        folder = reserve_folder(self.workspace.data, Path(file_name).stem)
        name = folder.name
        with keep_if_filled(folder):
            source = keep_upload(self.workspace, file, name)
            with self.workspace.keep_if_used(source):
                prepare_upload(self.workspace, source, name, choices or FileChoices(), self.find_tasks())
        data = load_inspected(name, dataset_dir=self.workspace.data)
        write_data_page(data, self.workspace.data_reports / f"{name}.html", ProfileOptions())
        return name, self.show_data(name, language)

    def show_data(self, name: str | None, language: str = DEFAULT_LANGUAGE) -> str:
        """Return the report of a data set, "" where none is chosen."""
        check_language(language)
        if not name:
            return ""
        pick(dict.fromkeys(self.workspace.list_names(self.workspace.data)), name, "data_set")
        page = read_page(self.workspace.data_reports / f"{name}.html")
        return views.show_report(self.workspace.hide_root(page), name, language)

    def start(self, data: str | None, recipe: str | None, model_name: str) -> str:
        """Start a training on a data set, and return its progress.

        Raises:
            ConfigError: when there is no such data set or recipe, or a training runs already.
        """
        folder = pick(self.find_data(), data, "data_set")
        offered = pick(self.find_recipes(), recipe, "recipe")
        if (reason := explain_recipe(offered.recipe, folder)) is not None:
            raise PageError(
                f"The recipe {recipe} does not fit the data set {data}: {reason.en}.",
                f"配方 {recipe} 不适合数据集 {data}：{reason.zh}。",
                code="recipe-of-data",
            )
        name = choose_name(self.workspace.jobs, model_name.strip() or f"{data}-{Path(str(recipe)).name}")
        settings = build_settings(offered, folder)
        training_jobs.start_job(self.workspace, name, settings, {"data": str(data), "recipe": str(recipe)})
        return self.show_progress()

    def stop(self) -> str:
        """Stop the training, and return its progress."""
        training_jobs.stop_job(self.workspace)
        return self.show_progress()

    def resume(self) -> str:
        """Resume the training that was stopped or failed, and return its progress."""
        training_jobs.resume_job(self.workspace)
        return self.show_progress()

    def show_progress(self) -> str:
        """Return the progress of the newest training."""
        return self.workspace.hide_root(views.show_progress(training_jobs.find_job(self.workspace)))

    def compare(
        self,
        base_model: str | None,
        tuned_model: str | None,
        file: str | None,
        data: str | None,
        max_samples: int = 0,
        language: str = DEFAULT_LANGUAGE,
        choices: FileChoices | None = None,
    ) -> tuple[str, str]:
        """Compare two models on a file, or on the test part of a data set; return the report's name and the report.

        Raises:
            ConfigError: when there is no such model or data set.
            DataError: when the file cannot be used, or has reviews that a model was trained on.
            EngineError: when a model cannot be run.
        """
        from sentifactory.evaluation.compare import compare_in_own_process, read_inputs
        from sentifactory.evaluation.compare_options import CompareOptions

        check_language(language)
        models = self.find_models()
        base, tuned = (str(pick(models, name, "model")) for name in (base_model, tuned_model))
        if (max_samples or 0) < 0:
            raise PageError(*WORDS["negative_number"], code="option-value")
        test, train = self._find_test(file, data, [base, tuned], choices or FileChoices())
        folder = reserve_folder(self.workspace.reports, f"{Path(str(tuned_model)).name}-{test.stem}")
        name = folder.name
        options = CompareOptions(
            csv_path=str(test),
            base_model=base,
            finetuned_model=tuned,
            output_file=str(folder / "report.json"),
            max_samples=max_samples or None,
            engine="auto",
            mode="score",
            train_csv=str(train) if train else None,
        )
        with keep_if_filled(folder), self.workspace.keep_if_used(test) if file else contextlib.nullcontext():
            reviews, chosen = read_inputs(options)  # however long that takes, predictions go on
            with self.models_lock:
                compare_in_own_process(reviews, chosen, options)
        return name, self.show_report(name, language)

    def _find_test(
        self, file: str | None, data: str | None, models: Sequence[str], choices: FileChoices
    ) -> tuple[Path, Path | None]:
        """Return the file of test reviews, and that of training reviews where it is known."""
        from sentifactory.engines.registry import AUTO, split_by_prompt

        if file:
            prompted, classifiers = split_by_prompt((AUTO, model) for model in models)
            task = choose_task(models=prompted, classifiers=classifiers).task
            return convert_test_file(self.workspace, file, choices, task), None
        folder = pick(self.find_data(), data, "data_set")
        if (missing := find_missing_part(folder, "test")) is not None:
            raise PageError(f"{data}: {missing.en}.", f"{data}：{missing.zh}。", code="part-missing")
        train = folder / "train.csv"
        return folder / "test.csv", train if train.is_file() else None

    def show_report(self, name: str | None, language: str = DEFAULT_LANGUAGE) -> str:
        """Return an earlier report, "" where none is chosen."""
        check_language(language)
        if not name:
            return ""
        pick(dict.fromkeys(self.list_reports()), name, "report")
        page = read_page(self.workspace.reports / name / "report.html")
        return views.show_report(self.workspace.hide_root(page), say("report", language), language)

    def inspect(
        self, file: str | None, choices: FileChoices, task: Task | None = None
    ) -> tuple[UploadedFile, FileTasks]:
        """Return what is in an uploaded file, and the tasks for it.

        Args:
            file: path of the upload.
            choices: of the user.
            task: the one that the file is for, where it is known already.

        Raises:
            DataError: when it cannot be read.
            ConfigError: when a choice does not fit it.
        """
        if not file or Path(file).suffix.lower() not in FILE_SUFFIXES:
            keep_upload(self.workspace, file, "")  # says why
        tasks = self.find_tasks()
        words = LabelWords.collect((offered.task for offered in tasks.values()), task)
        found = inspect_upload(str(file), choices, words)
        return found, choose_tasks(found, tasks, choices.star_threshold)


def read_page(path: Path) -> str:
    """Return the HTML of a report.

    Raises:
        PageError: when it has been removed.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PageError(*WORDS["no_report"], code="report-gone") from None


def check_language(language: str) -> None:
    """Raise a ConfigError where the page does not have a language."""
    if language not in LANGUAGES:
        raise ConfigError(f"There is no language {language!r}", expected=", ".join(LANGUAGES), code="language")
