"""What the lists of the page offer, and how it gets into them without overwriting what the user has chosen.

The server cannot know what was chosen since a request was sent. It therefore sends what a list offers, and the browser
chooses from it (`sentifactory.offer` in page.js): it knows from which lists the user has chosen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from sentifactory.ui.actions import PageActions
from sentifactory.ui.fitting_lists import FittingLists, describe_list
from sentifactory.ui.model_choices import choose_sides


class ListOffers:
    """The lists of models, data sets and reports of all tabs.

    Args:
        gradio: the module, which is imported late.
        actions: of the page.
        fitting: finds what goes together.

    Attributes:
        models: base and tuned model of each tab, then that of the tab Models.
        data: lists of data sets and reports.
    """

    def __init__(self, gradio: Any, actions: PageActions, fitting: FittingLists) -> None:
        self._gradio, self._actions, self._fitting = gradio, actions, fitting
        self.models: list[Any] = []
        self.data: list[Any] = []
        self._names: dict[str, Any] = {}  # state with the names of a list, by its id
        self._dependent: list[tuple[Callable[..., Any], list[Any], list[Any], list[Any]]] = []

    def watch(self, added: Any) -> Any:
        """Note in the browser when the user chooses from a list; return the list."""
        self._names[added.elem_id] = self._gradio.State(None)
        added.input(None, None, None, js=f"() => sentifactory.choose('{added.elem_id}')")
        return added

    def forget(self, dependent: Any, on: Any) -> None:
        """Let a choice from one list undo what the user chose from another: that was for the one before.

        Args:
            dependent: the list whose choice is forgotten; its next offer replaces it.
            on: the list that the user chooses from.
        """
        on.input(None, None, None, js=f"() => sentifactory.forget('{dependent.elem_id}')")

    def fill(self, listen: Callable[..., Any], *, is_kept: bool) -> Any:
        """Let an event fill all lists, and leave out what does not fit the choices; return when they are full.

        Args:
            listen: of the page or of a component.
            is_kept: whether a choice that still exists stays; False chooses the newest unless the user has chosen.
        """
        lists = [*self.models, *self.data]
        event = self._offer(listen, lambda: [self._list_all(is_kept=is_kept)], None, lists)
        # Nothing follows a script of the browser; once there is a further answer, it has put the offers in.
        filled = event = event.then(lambda: None, None, None, show_progress="hidden")
        for action, inputs, dependent, others in self._dependent:
            event = self._offer(event.then, action, inputs, dependent, others)
        return filled

    def depend(
        self, on: Any, action: Callable[..., Any], inputs: list[Any], lists: list[Any], others: list[Any]
    ) -> None:
        """Let the choices of lists depend on another choice.

        Args:
            on: the component with that choice.
            action: returns what the lists offer, and further updates.
            inputs: of the action.
            lists: those that depend on it.
            others: further outputs of the action.
        """
        self._dependent.append((action, inputs, lists, others))
        self._offer(on.change, action, inputs, lists, others)

    def _list_all(self, *, is_kept: bool) -> list[dict[str, Any]]:
        _, tuned = choose_sides(self._actions.find_models())
        names = {
            "past-report": self._actions.list_reports(),
            "train-data": self._fitting.list_training_data(),
            "compare-data": self._fitting.list_tests(tuned),
        }
        data = [
            describe_list(names[one.elem_id], next(iter(names[one.elem_id]), None), is_kept=is_kept)
            for one in self.data
        ]
        for one, offer in zip(self.data, data, strict=True):
            if one.elem_id == "past-report":  # opened by the user alone
                offer["first"] = None
        return [*self._list_models(is_kept=is_kept), *data]

    def _list_models(self, *, is_kept: bool) -> list[dict[str, Any]]:
        """Return what the lists of models offer.

        Args:
            is_kept: as of `fill`.
        """
        found = self._actions.find_models()
        models, (base, tuned) = list(found), choose_sides(found)
        firsts = [(base, tuned)[at % 2] for at in range(len(self.models) - 1)]
        firsts += [tuned] if tuned else models[:1]
        firsts += [None] * (len(self.models) - len(firsts))  # no models
        return [describe_list(models, first, is_kept=is_kept) for first in firsts]

    def list_new_models(self) -> list[dict[str, Any]]:
        """Return what the lists of models offer once a training is finished; base models follow tuned ones."""
        offers = self._list_models(is_kept=False)
        return [{} if at % 2 == 0 and at < len(offers) - 1 else offer for at, offer in enumerate(offers)]

    def _offer(
        self, listen: Callable[..., Any], action: Callable[..., Any], inputs: Any, lists: list[Any], others: Any = ()
    ) -> Any:
        offers, names = self._gradio.Textbox(visible=False), self.find_names(lists)

        def run(*chosen: Any) -> list[Any]:
            offered, *updates = action(*chosen[len(names) :])
            return [*self.send(offered, chosen[: len(names)]), *updates]

        outputs = [offers, *lists, *names, *others]
        event = listen(run, [*names, *(inputs or [])], outputs, show_progress="hidden")
        self.follow(event, offers, lists)
        return event

    def find_names(self, lists: list[Any]) -> list[Any]:
        """Return the states that hold which names lists have by now."""
        return [self._names[one.elem_id] for one in lists]

    def send(self, offered: list[dict[str, Any]], before: Sequence[list[str] | None]) -> list[Any]:
        """Return the outputs of an offer: the offers as JSON text, the updates of the lists, and their names.

        The names are sent by the server, since it refuses a choice that it did not offer; what is chosen of them is
        left to the browser. (gradio writes JSON of its own only in its queue, hence the text.)

        Args:
            offered: from `describe_list`, for each list; {}: as before. [] for all of them.
            before: the names that the lists have; one whose names stay the same is left alone, since the user may be
                typing in it.
        """
        skip, update = self._gradio.skip, self._gradio.update
        offered = offered or [{} for _ in before]
        is_new = [bool(one) and one["names"] != names for one, names in zip(offered, before, strict=True)]
        lists = [update(choices=one["names"]) if new else skip() for one, new in zip(offered, is_new, strict=True)]
        names = [one["names"] if new else skip() for one, new in zip(offered, is_new, strict=True)]
        return [json.dumps(offered), *lists, *names]

    def follow(self, event: Any, offers: Any, lists: list[Any]) -> None:
        """Let the browser choose in lists from what is offered after an event.

        Args:
            event: after which there is an offer.
            offers: component with a JSON list of offers (`describe_list`), {} or no text: as before.
            lists: in the order of the offers.
        """
        script = f"(offers, ...chosen) => sentifactory.offer({[one.elem_id for one in lists]}, offers, chosen)"
        event.then(None, [offers, *lists], lists, js=script, show_progress="hidden")
