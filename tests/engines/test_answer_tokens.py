from __future__ import annotations

import math

import pytest

from sentifactory.engines.answer_tokens import AnswerTree, build_answer_tree, normalise_scores, read_scores
from sentifactory.errors import EngineError
from sentifactory.task.task import BINARY_SENTIMENT


def test_only_what_tells_labels_apart_is_scored() -> None:
    assert build_answer_tree([[5, 6, 0, 9], [5, 6, 1, 9]]) == AnswerTree((5, 6), ((0,), (1,)))


def test_an_end_that_is_needed_stays() -> None:
    # [7] is the beginning of [7, 8]: the token 9 says that the first is over.
    assert build_answer_tree([[5, 7, 9, 4], [5, 7, 8, 9, 4]]) == AnswerTree((5, 7), ((9,), (8, 9)))


@pytest.mark.parametrize("sequences", [[[1, 2], [1, 2]], [[1, 2], [1, 2, 3]]])
def test_answers_that_cannot_be_told_apart_are_refused(sequences: list[list[int]]) -> None:
    with pytest.raises(EngineError, match="cannot distinguish the answers of the task"):
        build_answer_tree(sequences)


def test_forks_and_longest_paths_of_labels_that_part_twice() -> None:
    tree = AnswerTree((), ((1, 2), (1, 3), (4,)))
    assert tree.forks == {(): (1, 4), (1,): (2, 3)}
    assert tree.longest_paths == ((1,),)


def test_whole_labels_are_weighed_and_greedy_steps_are_not() -> None:
    """0.6 for token 1, then 0.5 and 0.5; 0.4 for token 4: greedy goes to 1, the likeliest whole label is the third."""
    tree = AnswerTree((), ((1, 2), (1, 3), (4,)))
    scores = {((), 1): math.log(0.6), ((), 4): math.log(0.4), ((1,), 2): math.log(0.5), ((1,), 3): math.log(0.5)}
    assert normalise_scores(tree.sum_scores(scores)) == pytest.approx((0.3, 0.3, 0.4))
    assert tree.decode_greedily(scores) == 0


def test_modes_read_the_same_scores() -> None:
    tree = AnswerTree((7,), ((0,), (1,)))
    scores = {((), 0): math.log(0.1), ((), 1): math.log(0.3)}
    scored = read_scores(tree, scores, BINARY_SENTIMENT, "score", 0.5)
    assert (scored.label, scored.raw, scored.latency_s) == (1, "", 0.5)
    assert scored.probabilities == pytest.approx((0.25, 0.75))
    assert scored.log_likelihoods == pytest.approx((math.log(0.1), math.log(0.3)))
    constrained = read_scores(tree, scores, BINARY_SENTIMENT, "constrain", 0.5)
    assert (constrained.label, constrained.raw, constrained.probabilities) == (1, '{"sentiment": 1}', None)


def test_hopeless_scores_are_no_division_by_zero() -> None:
    assert normalise_scores([-math.inf, -math.inf]) == (0.5, 0.5)
    assert normalise_scores([-math.inf, -900.0]) == (0.0, 1.0)
