"""Builds the page of gradio's parts: tabs, their controls, and which action each control calls.

Every control is gradio's own, so that all of it is reached by the keyboard and read out with its label. Each action
is an endpoint with a name, for programs (`/?view=api` lists them).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from sentifactory.ui.actions import PageActions
from sentifactory.ui.browser import EXAMPLES, FIRST_LANGUAGE, FONTS, NEW_LANGUAGE
from sentifactory.ui.mistakes import tell_mistakes
from sentifactory.ui.offers import choose_sides
from sentifactory.ui.wording import DEFAULT_LANGUAGE, LANGUAGES, WORDS, say

TICK_S = 2.0


class PageBuilder:
    """Collects what has to be translated while the tabs are built.

    Args:
        actions: what the controls do.
        has_training: whether there is a tab to train.
    """

    def __init__(self, actions: PageActions, has_training: bool) -> None:
        import gradio

        self.gradio = gradio
        self.actions = actions
        self._has_training = has_training
        self._worded: list[tuple[Any, str, str]] = []  # component, property, key in WORDS
        self._model_lists: list[Any] = []
        self._data_lists: list[Any] = []
        self._progress: Any = None

    def build(self) -> Any:
        """Return the page (gradio's Blocks)."""
        gr = self.gradio
        theme = gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=("ui-monospace",))
        style = (files("sentifactory.ui") / "templates" / "ui.css").read_text(encoding="utf-8")
        with gr.Blocks(
            title="SentiFactory", theme=theme, head=f"<style>{style}</style>", analytics_enabled=False
        ) as page:
            with gr.Row(equal_height=True):
                gr.HTML("<h1 style='margin:0;font-size:1.6rem'>SentiFactory</h1>")
                self.language = gr.Radio(
                    [(title, code) for code, title in LANGUAGES.items()],
                    value=DEFAULT_LANGUAGE,
                    label="Language · 语言",
                    scale=0,
                    min_width=220,
                    elem_id="language",
                )
            with gr.Tabs():
                for key, build in self._list_tabs().items():
                    with gr.Tab(say(key, DEFAULT_LANGUAGE), id=key, elem_id=f"tab-{key}") as tab:
                        self._worded.append((tab, "label", key))
                        build()
            self._follow_language(page)
            if self._progress is not None:  # after the tabs: it follows their lists of models
                self._follow_training(self._progress)
            lists = [*self._model_lists, *self._data_lists]
            page.load(self._refresh, None, lists, api_name=False, show_progress="hidden")
        return page

    def _list_tabs(self) -> dict[str, Callable[[], None]]:
        tabs = {"predict": self._build_predict}
        if self._has_training:
            tabs["train"] = self._build_train
        return tabs | {"compare": self._build_compare, "models": self._build_models}

    def _add(self, kind: Any, key: str, **options: Any) -> Any:
        """Return a new component whose label (or text, of a button) is in the chosen language."""
        is_button = kind is self.gradio.Button
        words = {"value" if is_button else "label": say(key, DEFAULT_LANGUAGE)}
        component = kind(**words, elem_id=options.pop("elem_id", key), **options)
        self._worded.append((component, "value" if is_button else "label", key))
        return component

    def _add_choice(self, key: str, choices: list[str], value: str | None, elem_id: str) -> Any:
        return self._add(self.gradio.Dropdown, key, choices=choices, value=value, elem_id=elem_id)

    def _add_models(self, tab: str) -> tuple[Any, Any]:
        models = list(self.actions.find_models())
        with self.gradio.Row():
            sides = zip(("base_model", "tuned_model"), choose_sides(models), strict=True)
            base, tuned = (self._add_choice(key, models, first, f"{tab}-{key}") for key, first in sides)
        self._model_lists += [base, tuned]
        return base, tuned

    def _build_predict(self) -> None:
        gr = self.gradio
        texts = self._add(gr.Textbox, "texts", lines=4, max_lines=12, placeholder=say("texts_hint", DEFAULT_LANGUAGE))
        self._worded.append((texts, "placeholder", "texts_hint"))
        gr.Examples([[text] for text in EXAMPLES], texts, label="Examples · 示例", api_name=False)
        base, tuned = self._add_models("predict")
        button = self._add(gr.Button, "ask", variant="primary")
        answers = gr.HTML(elem_id="answers")
        self._call(button, self.actions.predict, [texts, base, tuned], answers, "predict", queue="models")

    def _build_train(self) -> None:
        gr, actions = self.gradio, self.actions
        file = self._add(gr.File, "file", type="filepath", elem_id="train-file")
        check = self._add(gr.Button, "check_data", variant="primary")
        recipes = actions.find_recipes()
        if not recipes:
            gr.HTML(f"<p class='sf'>{_both('no_recipes')}</p>")
        with gr.Row():
            data = self._add_choice("data", [], None, "train-data")
            first = next(iter(recipes), None)
            recipe = self._add_choice("recipe", list(recipes), first, "train-recipe")
            name = self._add(gr.Textbox, "model_name", max_lines=1)
        purpose = gr.Markdown(recipes[first].purpose if first else "", elem_id="purpose")
        recipe.change(
            lambda chosen: recipes[chosen].purpose if chosen in recipes else "", recipe, purpose, api_name=False
        )
        with gr.Row():
            start = self._add(gr.Button, "start", variant="primary")
            stop = self._add(gr.Button, "stop", variant="stop")
            resume = self._add(gr.Button, "resume")
        progress = gr.HTML(actions.show_progress, elem_id="progress")
        report = gr.HTML(elem_id="data-report")
        self._data_lists.append(data)

        def prepare(path: str | None, language: str) -> tuple[Any, str]:
            found, page = actions.prepare(path, Path(path or "").name, language)
            return gr.update(choices=actions.list_data(), value=found), page

        self._call(check, prepare, [file, self.language], [data, report], "prepare", queue="data")
        self._call(start, actions.start, [data, recipe, name], progress, "train")
        self._call(stop, actions.stop, [], progress, "stop")
        self._call(resume, actions.resume, [], progress, "resume")
        self._progress = progress

    def _follow_training(self, progress: Any) -> None:
        """Let a timer show how far the training has come, and offer a model as soon as it is finished."""
        gr, actions = self.gradio, self.actions
        seen = gr.State(("", []))

        def look(before: tuple[str, list[str]]) -> list[Any]:
            shown, models = actions.show_progress(), list(actions.find_models())
            lists = self._refresh()[: len(self._model_lists)] if models != before[1] else self._skip_models()
            return [(shown, models), gr.skip() if shown == before[0] else shown, *lists]

        gr.Timer(TICK_S).tick(
            look, seen, [seen, progress, *self._model_lists], api_name=False, show_progress="hidden", queue=False
        )
        gr.Button(visible=False).click(actions.show_progress, None, progress, api_name="progress")

    def _skip_models(self) -> list[Any]:
        return [self.gradio.skip() for _ in self._model_lists]

    def _build_compare(self) -> None:
        gr, actions = self.gradio, self.actions
        base, tuned = self._add_models("compare")
        with gr.Row():
            file = self._add(gr.File, "test_file", type="filepath", elem_id="compare-file")
            with gr.Column():
                data = self._add_choice("test_data", [], None, "compare-data")
                most = self._add(gr.Number, "max_samples", value=0, minimum=0, precision=0)
        button = self._add(gr.Button, "run_compare", variant="primary")
        past = self._add_choice("past_report", [], None, "past-report")
        report = gr.HTML(elem_id="report")
        self._data_lists += [data, past]

        def compare(*chosen: Any) -> tuple[Any, str]:
            name, page = actions.compare(*chosen)
            return gr.update(choices=actions.list_reports(), value=name), page

        inputs = [base, tuned, file, data, most, self.language]
        self._call(button, compare, inputs, [past, report], "compare", queue="comparisons")
        past.input(tell_mistakes(actions.show_report), [past, self.language], report, api_name="report")

    def _build_models(self) -> None:
        gr = self.gradio
        names = list(self.actions.find_models())
        model = self._add_choice("model", names, next(iter(names), None), "card-model")
        self._model_lists.append(model)
        card = gr.HTML(elem_id="card")
        show = tell_mistakes(self.actions.show_card)
        model.change(show, model, card, api_name="model_card")
        button = self._add(gr.Button, "refresh")
        button.click(self._refresh, None, [*self._model_lists, *self._data_lists], api_name=False)
        gr.Button(visible=False).click(
            lambda: list(self.actions.find_models()), None, gr.JSON(visible=False), api_name="models"
        )

    def _refresh(self) -> list[Any]:
        """Return what the lists of models, data sets and reports hold now; a choice that is still there stays."""
        gr, actions = self.gradio, self.actions
        models = list(actions.find_models())
        base, tuned = choose_sides(models)
        firsts = [(base, tuned)[at % 2] for at in range(len(self._model_lists) - 1)] + models[:1]
        found = [gr.update(choices=models, value=first) for first in firsts]
        for component in self._data_lists:
            names = actions.list_reports() if component.elem_id == "past-report" else actions.list_data()
            found.append(gr.update(choices=names))
        return found

    def _follow_language(self, page: Any) -> None:
        targets = [component for component, _, _ in self._worded]

        def translate(language: str) -> list[Any]:
            return [self.gradio.update(**{name: say(key, language)}) for _, name, key in self._worded]

        silent: dict[str, Any] = {"api_name": False, "show_progress": "hidden"}
        page.load(lambda language: language, self.language, self.language, js=FIRST_LANGUAGE, **silent).then(
            translate, self.language, targets, **silent
        )
        self.language.input(translate, self.language, targets, js=NEW_LANGUAGE, **silent)

    def _call(
        self,
        button: Any,
        action: Callable[..., Any],
        inputs: list[Any],
        outputs: Any,
        name: str,
        *,
        queue: str | None = None,
    ) -> None:
        """Let a button call an action.

        Of the actions of one queue one runs at a time: two data sets prepared at once would get the same name.
        Whatever reads files has a queue apart from that of predictions, which no file may hold up.
        """
        alone = {"concurrency_id": queue, "concurrency_limit": 1} if queue else {}
        button.click(tell_mistakes(action), inputs, outputs, api_name=name, **alone)


def _both(key: str) -> str:
    english, chinese = WORDS[key]
    return f"<span class='en' lang='en'>{english}</span><span class='zh' lang='zh-CN'>{chinese}</span>"


def build_page(actions: PageActions, *, has_training: bool = True) -> Any:
    """Return the page (gradio's Blocks).

    Args:
        actions: what the controls do.
        has_training: whether there is a tab to train.
    """
    return PageBuilder(actions, has_training).build()
