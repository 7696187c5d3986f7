"""Scores of the transformers engine against the plain way: a full forward pass over every whole answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentifactory.engines.local.transformers_engine import TransformersEngine
from sentifactory.engines.registry import build_engine
from sentifactory.records import Prediction, Review
from sentifactory.task.task import BINARY_SENTIMENT, Task

pytestmark = pytest.mark.slow

WORDS = Task(
    name="words",
    labels=("positive", "negative", "neutral"),
    answer_key="情感",
    answer_values=("好评", "非常负面的评价", "说不清楚"),
    prompt_template="判断评论的情感：好评、非常负面的评价、说不清楚\n评论：{text}",
)
WINDOW = 16  # tokens; shorter than the prompts' common beginning


def make_weights_matter(engine: TransformersEngine) -> None:
    """Fresh random weights are so small that every prompt gets the same reply."""
    import torch

    with torch.no_grad():
        for name, weight in engine._model.named_parameters():
            if ".layers." in name and weight.ndim == 2:
                weight.mul_(8)


@pytest.fixture(scope="module")
def narrow_gemma(short_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("narrow") / "gemma"
    shutil.copytree(short_gemma, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sliding_window": WINDOW}))
    return folder


@pytest.fixture(scope="module", params=["tiny_qwen", "narrow_gemma"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=[BINARY_SENTIMENT, WORDS], ids=["one token", "several tokens"])
def engine(folder: Path, request: pytest.FixtureRequest) -> Iterator[TransformersEngine]:
    with TransformersEngine(str(folder), request.param, mode="score", batch_size=5) as engine:
        make_weights_matter(engine)
        yield engine


def score_plainly(engine: TransformersEngine, review: Review) -> list[float]:
    """Log-softmax over whole answers, nothing shared, batched or left out; then what all labels share is dropped."""
    import torch

    prompt = engine._encode(review)
    task, tree = engine._task, engine._tree
    totals = []
    for label in range(len(task.labels)):
        answer = engine._tokenizer(task.render_answer(label), add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = engine._model(input_ids=torch.tensor([prompt + answer])).logits[0].double()
        logs = logits.log_softmax(-1)
        steps = [float(logs[len(prompt) + place - 1, token]) for place, token in enumerate(answer)]
        own = slice(len(tree.lead), len(tree.lead) + len(tree.endings[label]))
        totals.append(sum(steps[own]))
    return totals


def test_scores_are_those_of_whole_forward_passes(engine: TransformersEngine, reviews: list[Review]) -> None:
    chosen = reviews[:11]
    predictions = engine.predict(chosen)
    assert len(engine._scorer._prefix) > WINDOW  # something is shared, and more than a sliding window holds
    for review, prediction in zip(chosen, predictions, strict=True):
        assert prediction.log_likelihoods == pytest.approx(score_plainly(engine, review), abs=1e-4)
    assert sum(predictions[0].probabilities) == pytest.approx(1)
    assert len({prediction.log_likelihoods for prediction in predictions}) == len(chosen)


def test_hidden_states_are_those_of_whole_forward_passes(engine: TransformersEngine, reviews: list[Review]) -> None:
    import torch

    chosen = reviews[:7]
    fitting, states = engine.read_states(chosen)
    assert fitting == list(range(7))
    decoder = engine._model.model
    assert states.shape == (len(decoder.layers), 7, engine._model.config.hidden_size)
    for at, review in enumerate(chosen):
        ids = [*engine._encode(review), *engine._tree.lead]
        with torch.inference_mode():
            plain = decoder(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
            normed = decoder.norm(torch.from_numpy(states[-1, at]))
        for layer, state in enumerate(states[:-1, at], 1):
            assert torch.allclose(torch.from_numpy(state), plain[layer][0, -1], atol=1e-4)
        assert torch.allclose(normed, plain[-1][0, -1], atol=1e-4)
    assert engine.predict(chosen[:1])[0].probabilities is not None  # no hook is left behind


def test_reviews_that_are_too_long_have_no_hidden_states(tiny_qwen: Path) -> None:
    with TransformersEngine(str(tiny_qwen), BINARY_SENTIMENT, mode="score") as engine:
        engine._limit = len(engine._encode(Review("很好"))) + engine._n_reply_tokens
        fitting, states = engine.read_states([Review("很好"), Review("房间很干净" * 20), Review("很差")])
        assert (fitting, states.shape[1]) == ([0, 2], 2)
        assert engine.read_states([Review("房间很干净" * 20)])[0] == []


def test_a_label_of_several_tokens_counts_with_all_of_them(folder: Path) -> None:
    with TransformersEngine(str(folder), WORDS, mode="score") as engine:
        text = engine._tokenizer.decode(list(engine._tree.endings[1]))
        assert len(engine._tree.endings[1]) > 1
        assert "负面的评" in text


def test_order_batches_and_company_do_not_change_scores(engine: TransformersEngine, reviews: list[Review]) -> None:
    told: dict[int, Prediction] = {}
    together = engine.predict(reviews[:13], told.__setitem__)
    assert [told[position] for position in range(13)] == together
    engine._batch_size = 3
    backwards = engine.predict(reviews[:13][::-1])[::-1]
    alone = [engine.predict([review])[0] for review in reviews[:3]]
    for one, other in [*zip(together, backwards, strict=True), *zip(together, alone, strict=False)]:
        assert one.log_likelihoods == pytest.approx(other.log_likelihoods, abs=1e-4)


def test_constrain_and_score_name_the_same_label(tiny_qwen: Path, reviews: list[Review]) -> None:
    found = {}
    for mode in ("constrain", "score"):
        with TransformersEngine(str(tiny_qwen), BINARY_SENTIMENT, mode=mode) as engine:
            make_weights_matter(engine)
            found[mode] = engine.predict(reviews)
    for constrained, scored in zip(found["constrain"], found["score"], strict=True):
        assert constrained.raw == BINARY_SENTIMENT.render_answer(constrained.label)
        if abs(scored.probabilities[0] - scored.probabilities[1]) > 1e-4:
            assert constrained.label == scored.label
    assert {prediction.label for prediction in found["score"]} == {0, 1}


def test_the_registry_hands_the_mode_on(tiny_qwen: Path) -> None:
    with build_engine("transformers", str(tiny_qwen), BINARY_SENTIMENT, mode="score") as engine:
        assert engine.predict([Review("很好")])[0].probabilities is not None
        assert engine.predict([]) == []
