"""The tab Models: the card of a model, the reports on it, and a dry run of publishing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentifactory.ui.model_actions import ModelActions
from sentifactory.ui.model_choices import choose_sides
from sentifactory.ui.views import show_checking, show_errors

if TYPE_CHECKING:
    from sentifactory.ui.page import PageBuilder


class ModelsPanel:
    """The controls of the tab.

    Args:
        builder: of the page.
    """

    def __init__(self, builder: PageBuilder) -> None:
        gr = builder.gradio
        self._gradio, self._actions = gr, ModelActions(builder.actions)
        models = builder.actions.find_models()
        _, tuned = choose_sides(models)
        first = tuned or next(iter(models), None)
        with gr.Row(elem_id="model-row"):
            self.model = builder.add_choice("model", list(models), first, "card-model", scale=3)
            publish = builder.add(gr.Button, "publish_model", elem_id="publish-chosen", min_width=140)
            self.refresh = builder.add(gr.Button, "refresh", min_width=140)
        publication = gr.HTML(elem_id="chosen-publication")
        self._card = gr.HTML(elem_id="card")
        self._report_name = builder.add_choice("open_report", [], None, "card-report", visible=False)
        self._report = gr.HTML(elem_id="card-report-page")
        outputs = [self._card, self._report_name, self._report, publication]
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        fast = self.model.change(show_errors(self._show_fast), self.model, outputs, **quiet)
        self._searches = [fast.then(show_errors(self._show), self.model, outputs[:2], **quiet)]
        self._report_name.input(
            show_errors(self._actions.show_report),
            [self.model, self._report_name, builder.language],
            self._report,
        )
        publish.click(show_checking, None, publication, **quiet).then(
            show_errors(self._actions.preview_publication),
            self.model,
            publication,
            concurrency_id="publishing",
            concurrency_limit=1,
        )

    def _show_fast(self, model: str | None) -> list[Any]:
        """Return the card of a model without its reports, and nothing for what was shown of another one."""
        return [self._actions.show_card(model, with_reports=False), self._gradio.update(visible=False), "", ""]

    def _show(self, model: str | None) -> list[Any]:
        """Return the card of a model, and the list of its reports."""
        names = list(self._actions.find_reports(model))
        return [self._actions.show_card(model), self._gradio.update(choices=names, value=None, visible=bool(names))]

    def show_after(self, *events: Any) -> None:
        """Show the card of the chosen model after events that are no choice of another model.

        Args:
            events: the loading of the page, since a value that a list gets by itself is no change to gradio, and
                comparisons, which the card tells of.
        """
        outputs = [self._card, self._report_name]
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        for event in events:
            fast = event.then(show_errors(lambda model: self._show_fast(model)[:2]), self.model, outputs, **quiet)
            self._searches.append(fast.then(show_errors(self._show), self.model, outputs, **quiet))
        # Reports of a model that is no longer chosen must not appear later.
        self.model.change(None, None, None, cancels=self._searches)
