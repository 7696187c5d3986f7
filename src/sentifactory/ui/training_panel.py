"""The lower part of the tab Train: start, stop, continue, the progress, and what to do with the finished model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentifactory.ui import training_jobs
from sentifactory.ui.model_actions import ModelActions
from sentifactory.ui.training_jobs import FAILED, FINISHED, RUNNING, STOPPED
from sentifactory.ui.views import show_checking, show_errors, show_log

if TYPE_CHECKING:
    from sentifactory.ui.page import PageBuilder

TICK_S = 2.0


class TrainingPanel:
    """The controls of a training.

    Args:
        builder: of the page.
        data: the list of data sets.
        recipe: the list of recipes.
        name: of the new model.
    """

    def __init__(self, builder: PageBuilder, data: Any, recipe: Any, name: Any) -> None:
        gr = builder.gradio
        self._builder, self._gradio, self._actions = builder, gr, builder.actions
        self._models = ModelActions(builder.actions)
        with gr.Row():
            self._start = builder.add(gr.Button, "start", variant="primary")
            self._stop = builder.add(gr.Button, "stop", variant="stop", visible=False)
            self._resume = builder.add(gr.Button, "resume", visible=False)
        self.progress = gr.HTML(self._actions.show_progress, elem_id="progress")
        with gr.Row(visible=False, elem_id="next-steps") as self._next:
            self._use = builder.add(gr.Button, "use_model", variant="primary")
            self._compare = builder.add(gr.Button, "compare_model")
            self._publish = builder.add(gr.Button, "publish_model")
        self._publication = gr.HTML(elem_id="publication")
        self._log_box = builder.add(gr.Accordion, "log", open=False, visible=False)
        with self._log_box:
            self._log = gr.HTML(elem_id="log-lines")
        builder.call(self._start, self._actions.start, [data, recipe, name], self.progress)
        builder.call(self._stop, self._actions.stop, [], self.progress)
        builder.call(self._resume, self._actions.resume, [], self.progress)
        for button in (self._start, self._resume):  # what was said about an earlier model
            button.click(lambda: "", None, self._publication, show_progress="hidden")

    def follow(self) -> None:
        """Show the training by a timer, and update the lists of models of all tabs when one is finished."""
        lists = self._builder.lists
        gr, state = self._gradio, self._gradio.State(("", "", "", ()))
        controls = [self._start, self._stop, self._resume, self._next, self._log_box]

        def update(before: tuple[str, str, str, tuple[str, ...]], *names: list[str] | None) -> list[Any]:
            job = training_jobs.find_job(self._actions.workspace)
            phase, log = job.state if job is not None else "", show_log(job)
            now = (phase, self._actions.show_progress(), log, tuple(self._actions.find_models()))
            shown = gr.skip() if now[1] == before[1] else now[1]
            lines = gr.skip() if log == before[2] else log
            is_same = (phase, bool(log)) == (before[0], bool(before[2])) and before[1] != ""
            buttons = [gr.skip() for _ in controls] if is_same else self._update_controls(phase, bool(log))
            offered = [] if now[3] == before[3] else lists.list_new_models()
            return [now, shown, lines, *buttons, *lists.send(offered, names)]

        offers, names = gr.Textbox(visible=False), lists.find_names(lists.models)
        outputs = [state, self.progress, self._log, *controls, offers, *lists.models, *names]
        quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False}
        tick = gr.Timer(TICK_S).tick(update, [state, *names], outputs, **quiet)
        lists.follow(tick, offers, lists.models)

    def _update_controls(self, state: str, has_log: bool) -> list[Any]:
        gr = self._gradio
        return [
            gr.update(interactive=state != RUNNING),
            gr.update(visible=state == RUNNING),
            gr.update(visible=state in (STOPPED, FAILED)),
            gr.update(visible=state == FINISHED),
            gr.update(visible=has_log),
        ]

    def connect_next_steps(self, tabs: Any, predict: tuple[Any, Any], compare: tuple[Any, Any], tests: Any) -> None:
        """Connect the buttons of a finished model with the other tabs.

        Args:
            tabs: of the page.
            predict: base and tuned model of the tab Predict.
            compare: likewise of the tab Compare.
            tests: the data sets of the tab Compare.
        """
        gr = self._gradio

        def go_to(tab: str) -> list[Any]:
            found = self._models.find_trained()
            if found is None:
                return [gr.skip() for _ in range(4)]
            model, data = found
            origin = self._models.find_origin(model)
            base = gr.skip() if origin is None else gr.update(value=origin)
            return [gr.update(selected=tab), base, gr.update(value=model), gr.update(value=data)]

        quiet: dict[str, Any] = {"show_progress": "hidden"}
        self._use.click(lambda: go_to("predict")[:3], None, [tabs, *predict], **quiet)
        self._compare.click(lambda: go_to("compare"), None, [tabs, *compare, tests], **quiet)

        def preview() -> str:
            found = self._models.find_trained()
            return "" if found is None else self._models.preview_publication(found[0])

        checking = self._publish.click(show_checking, None, self._publication, **quiet)
        checking.then(show_errors(preview), None, self._publication, concurrency_id="publishing")
