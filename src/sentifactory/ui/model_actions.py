"""The actions of the tab of models and of the buttons after a training: card, reports, dry run of publishing."""

from __future__ import annotations

from pathlib import Path

from sentifactory.training.run.run_card import read_card
from sentifactory.ui import training_jobs, views
from sentifactory.ui.actions import PageActions, check_language, read_page
from sentifactory.ui.model_choices import OWN, find_base, pick
from sentifactory.ui.model_facts import describe_model
from sentifactory.ui.model_reports import ModelReport, find_reports
from sentifactory.ui.page_words import DEFAULT_LANGUAGE, say
from sentifactory.ui.publish_preview import preview_publication


class ModelActions:
    """What is done with one model.

    Args:
        actions: of the page, which know its models.
    """

    def __init__(self, actions: PageActions) -> None:
        self._actions = actions
        self._workspace = actions.workspace

    def show_card(self, model: str | None, *, with_reports: bool = True) -> str:
        """Return the card of a model, "" where none is chosen.

        Args:
            model: its name.
            with_reports: False leaves the reports out, which takes no time: they are found by a hash of the weights.

        Raises:
            ConfigError: when there is no such model.
        """
        if not model:
            return ""
        folder = pick(self._actions.find_models(), model, "model")
        reports = list(self.find_reports(model).values()) if with_reports else None
        card = describe_model(folder, read_card(folder), reports)
        return self._workspace.hide_root(views.show_card(model, card))

    def find_reports(self, model: str | None) -> dict[str, ModelReport]:
        """Return the comparisons in which a model was tested, by name, the newest first."""
        folder = self._actions.find_models().get(model or "")
        roots = {root.name: root for root in self._actions.model_roots} | {OWN: self._workspace.reports}
        return {} if folder is None else find_reports(folder, roots)

    def show_report(self, model: str | None, name: str | None, language: str = DEFAULT_LANGUAGE) -> str:
        """Return a comparison in which a model was tested, "" where none is chosen.

        Raises:
            ConfigError: when there is no such comparison of this model.
        """
        check_language(language)
        if not name:
            return ""
        page = read_page(pick(self.find_reports(model), name, "report").page)
        return views.show_report(self._workspace.hide_root(page), say("report", language), language)

    def preview_publication(self, model: str | None) -> str:
        """Return what publishing a model would upload, or why it would be refused.

        Raises:
            ConfigError: when there is no such model, or its files cannot be read.
        """
        folder, place = pick(self._actions.find_models(), model, "model"), Path.cwd()
        newest = next(iter(self.find_reports(model).values()), None)
        preview = preview_publication(folder, None if newest is None else newest.file)
        shown = folder.relative_to(place) if folder.is_relative_to(place) else Path(folder.name)
        return views.show_publication(str(model), str(shown), preview)

    def find_trained(self) -> tuple[str, str] | None:
        """Return the name of the model of the newest training and of its data set; None unless it finished."""
        job = training_jobs.find_job(self._workspace)
        if job is None or job.state != training_jobs.FINISHED:
            return None
        folder = Path(job.facts["output_dir"]).resolve()
        name = next((name for name, place in self._actions.find_models().items() if place == folder), None)
        return None if name is None else (name, str(job.facts.get("data")))

    def find_origin(self, model: str) -> str | None:
        """Return the name of the model that another one was tuned from; None where it is not offered here."""
        models = self._actions.find_models()
        return find_base(models[model], models) if model in models else None
