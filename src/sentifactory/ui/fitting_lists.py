"""The lists of models, data sets and recipes that fit what is chosen already.

A choice that does not fit is not in its list; beneath it stands which ones these are, and why. What a list offers is
sent to the browser, which puts it into the list (`list_offers`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sentifactory.ui.actions import PageActions
from sentifactory.ui.compatibility import Offer, explain_data, explain_models, explain_recipe, sort_out
from sentifactory.ui.model_choices import find_base
from sentifactory.ui.prepared_data import find_missing_part
from sentifactory.ui.views import show_misfits


class FittingLists:
    """Finds what fits.

    Args:
        gradio: the module, which is imported late.
        actions: of the page.
    """

    def __init__(self, gradio: Any, actions: PageActions) -> None:
        self._gradio, self._actions = gradio, actions

    def list_training_data(self) -> list[str]:
        """Return the data sets that can be trained on, the newest first."""
        return list(sort_out(self._actions.find_data(), lambda folder: find_missing_part(folder, "train")).names)

    def list_tests(self, tuned: str | None) -> list[str]:
        """Return the data sets on which a tuned model can be tested, the newest first."""
        return list(self._find_tests(tuned).names)

    def offer_base(self, tuned: str | None, base: str | None) -> list[Any]:
        """Return what the list of base models offers: those that can be asked the same question as a tuned one.

        The one that the tuned model was trained from is chosen first.
        """
        models = self._actions.find_models()
        own = models.get(tuned or "")
        if own is None:
            return self._offer(Offer(tuple(models), {}), base, "other_models")
        others = {name: folder for name, folder in models.items() if name != tuned}
        offer = sort_out(others, lambda folder: explain_models(own, folder))
        origin = find_base(own, models)
        return self._offer(offer, origin if origin in offer.names else base, "other_models")

    def offer_tests(self, tuned: str | None, data: str | None) -> list[Any]:
        """Return what the list of test data offers: data sets on which a tuned model can be tested."""
        return self._offer(self._find_tests(tuned), data, "other_data")

    def _find_tests(self, tuned: str | None) -> Offer:
        own = self._actions.find_models().get(tuned or "")
        return sort_out(self._actions.find_data(), lambda folder: explain_data(own, folder))

    def offer_recipes(self, data: str | None) -> list[Any]:
        """Return what the list of recipes offers: those that can train on a data set, the recommended ones first."""
        recipes, folder = self._actions.find_recipes(), self._actions.find_data().get(data or "")
        offer = Offer(tuple(recipes), {})
        if folder is not None:
            reasons = {name: explain_recipe(offered.recipe, folder) for name, offered in recipes.items()}
            misfits = {name: reason for name, reason in reasons.items() if reason is not None}
            offer = Offer(tuple(name for name in recipes if name not in misfits), misfits)
        return self._offer(offer, None, "other_recipes")

    def _offer(self, offer: Offer, first: str | None, heading: str) -> list[Any]:
        """Return what a list offers, and the update of the reasons beneath it."""
        shown = self._gradio.update(value=show_misfits(offer.misfits, heading), visible=bool(offer.misfits))
        chosen = first if first in offer.names else next(iter(offer.names), None)
        return [[describe_list(offer.names, chosen)], shown]


def describe_list(names: Iterable[str], first: str | None, *, is_kept: bool = False) -> dict[str, Any]:
    """Return what a list offers, for the browser.

    Args:
        names: the choices.
        first: the one that is chosen unless the user has chosen another one; None: none.
        is_kept: whether a choice that still is in the list stays, whoever made it.

    Example:
        >>> describe_list(["new", "old"], "new")
        {'names': ['new', 'old'], 'first': 'new', 'isKept': False}
    """
    return {"names": list(names), "first": first, "isKept": is_kept}
