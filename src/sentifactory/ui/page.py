"""Builds the page with gradio: tabs, their controls, and the action that each control calls.

All controls are gradio's own, so that the keyboard and screen readers reach them. No action is offered to programs as
an endpoint of gradio, whose refusals do not say why: `sentifactory serve` has an API for them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sentifactory.ui.actions import PageActions
from sentifactory.ui.choice_lists import make_choice_list
from sentifactory.ui.file_panel import FilePanel, read_choices
from sentifactory.ui.fitting_lists import FittingLists
from sentifactory.ui.language_scripts import write_scripts
from sentifactory.ui.list_offers import ListOffers
from sentifactory.ui.model_choices import choose_sides
from sentifactory.ui.models_panel import ModelsPanel
from sentifactory.ui.page_style import build_theme, write_head
from sentifactory.ui.page_words import (
    DEFAULT_LANGUAGE,
    EXAMPLES,
    LANGUAGES,
    WORDS,
    say,
)
from sentifactory.ui.training_panel import TrainingPanel
from sentifactory.ui.views import show_errors, show_purpose


class PageBuilder:
    """Builds the tabs and collects the components whose texts have to be translated.

    Args:
        actions: of the controls.
        has_training: whether there is a tab for training.
    """

    def __init__(self, actions: PageActions, has_training: bool) -> None:
        import gradio

        self.gradio = gradio
        self.actions = actions
        self._has_training = has_training
        self._fitting = FittingLists(gradio, actions)
        self.lists = ListOffers(gradio, actions, self._fitting)
        self._translated: list[tuple[Any, str, str]] = []  # component, property, key in WORDS
        self._training: TrainingPanel | None = None

    def build(self) -> Any:
        """Return the page (gradio's Blocks)."""
        gr = self.gradio
        with gr.Blocks(
            title="SentiFactory", theme=build_theme(gr), head=write_head(), analytics_enabled=False
        ) as page:
            with gr.Row(equal_height=True, elem_id="masthead"):
                gr.HTML("<h1>SentiFactory</h1>")
                self.language = gr.Radio(
                    [(title, code) for code, title in LANGUAGES.items()],
                    value=DEFAULT_LANGUAGE,
                    label="Language · 语言",
                    show_label=False,
                    container=False,
                    scale=0,
                    min_width=180,
                    elem_id="language",
                )
            with gr.Tabs() as tabs:
                for key, build in self._list_tabs().items():
                    with gr.Tab(say(key, DEFAULT_LANGUAGE), id=key, elem_id=f"tab-{key}") as tab:
                        self._translated.append((tab, "label", key))
                        build()
            self._follow_language(page)
            if self._training is not None:  # after the tabs, since it updates their lists of models
                self._training.follow()
                predict, compare = (tuple(self.lists.models[at : at + 2]) for at in (0, 2))
                tests = next(one for one in self.lists.data if one.elem_id == "compare-data")
                self._training.connect_next_steps(tabs, predict, compare, tests)
            self._models.show_after(self.lists.fill(page.load, is_kept=False), self._compared)
            self.lists.fill(self._models.refresh.click, is_kept=True)
        for action in page.fns.values():
            action.api_name = False
        return page

    def _list_tabs(self) -> dict[str, Callable[[], None]]:
        tabs = {"predict": self._build_predict}
        if self._has_training:
            tabs["train"] = self._build_train
        return tabs | {"compare": self._build_compare, "models": self._build_models}

    def add(self, kind: Any, key: str, **options: Any) -> Any:
        """Return a new component whose label (of a button: text) is in the chosen language."""
        is_button = kind is self.gradio.Button
        words = {"value" if is_button else "label": say(key, DEFAULT_LANGUAGE)}
        component = kind(**words, elem_id=options.pop("elem_id", key), **options)
        self._translated.append((component, "value" if is_button else "label", key))
        return component

    def add_choice(self, key: str, choices: list[str], value: str | None, elem_id: str, **options: Any) -> Any:
        """Return a new list to choose from, whose label is in the chosen language."""
        options |= {"choices": choices, "value": value, "elem_id": elem_id, "min_width": 220}
        return self.lists.watch(self.add(make_choice_list(), key, **options))

    def _add_models(self, tab: str) -> tuple[Any, Any]:
        """Add the lists of two models; those of base models that do not fit the tuned one are not offered."""
        models = self.actions.find_models()
        with self.gradio.Row():
            sides = zip(("base_model", "tuned_model"), choose_sides(models), strict=True)
            base, tuned = (self.add_choice(key, list(models), first, f"{tab}-{key}") for key, first in sides)
        misfits = self.gradio.HTML(visible=False, elem_id=f"{tab}-misfits")
        self.lists.forget(base, tuned)
        self.lists.depend(tuned, self._fitting.offer_base, [tuned, base], [base], [misfits])
        self.lists.models += [base, tuned]
        return base, tuned

    def _build_predict(self) -> None:
        gr = self.gradio
        texts = self.add(gr.Textbox, "texts", lines=4, max_lines=12, placeholder=say("texts_hint", DEFAULT_LANGUAGE))
        self._translated.append((texts, "placeholder", "texts_hint"))
        examples = gr.Examples([[text] for text in EXAMPLES], texts, label=say("examples", DEFAULT_LANGUAGE))
        self._translated.append((examples.dataset, "label", "examples"))
        base, tuned = self._add_models("predict")
        button = self.add(gr.Button, "ask", variant="primary")
        answers = gr.HTML(elem_id="answers")
        self.call(button, self.actions.predict, [texts, base, tuned], answers, queue="models")

    def _build_train(self) -> None:
        gr, actions = self.gradio, self.actions
        panel = FilePanel(self, "train", "file")
        check = self.add(gr.Button, "check_data", variant="primary")
        recipes = actions.find_recipes()
        if not recipes:
            gr.HTML(f"<p class='sf'>{_both('no_recipes')}</p>")
        with gr.Row():
            data = self.add_choice("data", [], None, "train-data")
            first = next(iter(recipes), None)
            recipe = self.add_choice("recipe", list(recipes), first, "train-recipe")
            name = self.add(gr.Textbox, "model_name", max_lines=1)
        misfits = gr.HTML(visible=False, elem_id="train-misfits")
        self.lists.depend(data, self._fitting.offer_recipes, [data], [recipe], [misfits])
        purpose = gr.HTML(show_purpose(recipes.get(first or "")), elem_id="purpose")
        recipe.change(lambda chosen: show_purpose(recipes.get(chosen)), recipe, purpose)
        self._training = TrainingPanel(self, data, recipe, name)
        report = gr.HTML(elem_id="data-report")
        self.lists.data.append(data)

        def prepare(path: str | None, language: str, *chosen: Any) -> tuple[Any, str]:
            found, page = actions.prepare(path, Path(path or "").name, language, read_choices(list(chosen)))
            return gr.update(choices=self._fitting.list_training_data(), value=found), page

        inputs = [panel.file, self.language, *panel.inputs]
        self.call(check, prepare, inputs, [data, report], queue="data")

    def _build_compare(self) -> None:
        gr, actions = self.gradio, self.actions
        base, tuned = self._add_models("compare")
        with gr.Row():
            with gr.Column():
                data = self.add_choice("test_data", [], None, "compare-data")
                misfits = gr.HTML(visible=False, elem_id="compare-data-misfits")
                most = self.add(gr.Number, "max_samples", value=0, precision=0)
            with gr.Column():
                panel = FilePanel(self, "compare", "test_file", actions.find_model_task, (tuned,))
        button = self.add(gr.Button, "run_compare", variant="primary")
        past = self.add_choice("past_report", [], None, "past-report")
        report = gr.HTML(elem_id="report")
        self.lists.data += [data, past]
        self.lists.depend(tuned, self._fitting.offer_tests, [tuned, data], [data], [misfits])

        def compare(*chosen: Any) -> tuple[Any, str]:
            base, tuned, file, data, most, language, *choices = chosen
            name, page = actions.compare(base, tuned, file, data, most, language, read_choices(choices))
            return gr.update(choices=actions.list_reports(), value=name), page

        inputs = [base, tuned, panel.file, data, most, self.language, *panel.inputs]
        self._compared = self.call(button, compare, inputs, [past, report], queue="comparisons")
        past.input(show_errors(actions.show_report), [past, self.language], report)

    def _build_models(self) -> None:
        self._models = ModelsPanel(self)
        self.lists.models.append(self._models.model)

    def _follow_language(self, page: Any) -> None:
        targets = [component for component, _, _ in self._translated]

        def translate(language: str) -> list[Any]:
            return [self.gradio.update(**{name: say(key, language)}) for _, name, key in self._translated]

        first_script, new_script = write_scripts()
        silent: dict[str, Any] = {"show_progress": "hidden"}
        # Both scripts run in the browser alone: an answer of the server could undo what was chosen meanwhile.
        page.load(None, None, self.language, js=first_script, **silent)
        self.language.input(None, self.language, self.language, js=new_script, **silent)
        self.language.change(translate, self.language, targets, trigger_mode="always_last", **silent)

    def call(
        self,
        button: Any,
        action: Callable[..., Any],
        inputs: list[Any],
        outputs: Any,
        *,
        queue: str | None = None,
    ) -> Any:
        """Connect a button with an action, and return the event.

        Actions of one queue run one at a time: two data sets prepared at once would get the same name. Actions that
        read files have another queue than predictions, so that no file delays these.
        """
        limits = {"concurrency_id": queue, "concurrency_limit": 1} if queue else {}
        return button.click(show_errors(action), inputs, outputs, **limits)


def _both(key: str) -> str:
    english, chinese = WORDS[key]
    return f"<span class='en' lang='en'>{english}</span><span class='zh' lang='zh-CN'>{chinese}</span>"


def build_page(actions: PageActions, *, has_training: bool = True) -> Any:
    """Return the page (gradio's Blocks).

    Args:
        actions: of the controls.
        has_training: whether there is a tab for training.
    """
    return PageBuilder(actions, has_training).build()
