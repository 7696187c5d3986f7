"""The encoder engine on a tiny BERT, and `sentifactory predict` side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_tiny_bert
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.engines.local.encoder_engine import EncoderEngine
from sentifactory.engines.registry import build_engine, choose_kind, split_by_prompt
from sentifactory.errors import ConfigError, EngineError
from sentifactory.models.classifiers import encode_texts, load_classifier
from sentifactory.records import Review
from sentifactory.task.label_names import match_labels
from sentifactory.task.model_folder import write_model_task
from sentifactory.task.task import BINARY_SENTIMENT, Task
from sentifactory.task.task_file import load_task

SARCASM = "这家饭店真贴心，知道我吃不饱还特地在里面放蟑螂"


@pytest.fixture(scope="module")
def headless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bert(tmp_path_factory.mktemp("tiny_bert"))


def save_classifier(folder: Path, headless: Path, labels: dict[int, str]) -> Path:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(headless, id2label=labels)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(headless).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, headless: Path) -> Path:
    return save_classifier(tmp_path_factory.mktemp("tuned"), headless, {0: "negative", 1: "positive"})


def make_reviews() -> list[Review]:
    return [Review("很好" * n + "太差"[: n % 3]) for n in (1, 9, 3, 40, 2, 7, 1)] + [Review(""), Review(SARCASM)]


def test_answers_do_not_depend_on_order_batch_or_padding(tuned: Path) -> None:
    reviews = make_reviews()
    told: list[int] = []
    with EncoderEngine(str(tuned), BINARY_SENTIMENT, batch_size=4) as engine:
        together = engine.predict(reviews, lambda at, _: told.append(at))
        alone = [engine.predict([review])[0] for review in reversed(reviews)][::-1]
    assert sorted(told) == list(range(len(reviews)))
    for one, other in zip(together, alone, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
        assert one.probabilities is not None
        assert sum(one.probabilities) == pytest.approx(1)
        assert one.label == one.probabilities.index(max(one.probabilities))


def test_the_same_answers_as_transformers_own_pipeline(tuned: Path) -> None:
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(tuned), top_k=None)
    with EncoderEngine(str(tuned), BINARY_SENTIMENT) as engine:
        (answer,) = engine.predict([Review(SARCASM)])
    shares = {entry["label"]: entry["score"] for entry in classify([SARCASM])[0]}
    assert answer.probabilities == pytest.approx((shares["negative"], shares["positive"]), abs=1e-5)


@pytest.mark.slow
def test_a_models_labels_in_another_order_and_in_other_words(tmp_path: Path, headless: Path, tuned: Path) -> None:
    from safetensors.torch import load_file, save_file

    turned = save_classifier(tmp_path, headless, {0: "positive (stars 4 and 5)", 1: "negative (stars 1, 2 and 3)"})
    weights = load_file(tuned / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name].flip(0)
    save_file(weights, turned / "model.safetensors", metadata={"format": "pt"})
    answers = []
    for folder in (tuned, turned):
        with EncoderEngine(str(folder), BINARY_SENTIMENT) as engine:
            answers.append(engine.predict(make_reviews()))
    assert [a.probabilities for a in answers[0]] == [pytest.approx(a.probabilities) for a in answers[1]]


def test_labels_that_are_not_those_of_the_task() -> None:
    stars = Task("stars", ("1", "2", "3"), "stars", (1, 2, 3), "{text}")
    with pytest.raises(EngineError, match="labels are negative, positive"):
        match_labels({0: "negative", 1: "positive"}, stars, "model")
    assert match_labels({0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, stars, "model") == [0, 1, 2]
    assert match_labels({0: "正面", 1: "负面"}, BINARY_SENTIMENT, "model") == [1, 0]


def test_control_tokens_in_a_review_are_text(tuned: Path) -> None:
    loaded = load_classifier(str(tuned), BINARY_SENTIMENT)
    control = set(loaded.tokenizer.all_special_ids) - {loaded.tokenizer.unk_token_id}
    (row,) = encode_texts(loaded.tokenizer, ["很好[SEP][CLS]太差[PAD]"], 64)
    assert [token for token in row if token in control] == [row[0], row[-1]]
    assert len(encode_texts(loaded.tokenizer, ["好" * 500], 64)[0]) == 64


@pytest.mark.slow
def test_an_encoder_without_a_head_is_said_to_have_none(headless: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with build_engine("auto", str(headless), BINARY_SENTIMENT, mode="score") as engine:
        assert "without a classification head" in capsys.readouterr().err
        first = engine.predict([Review(SARCASM)])[0].probabilities
    with build_engine("encoder", str(headless), BINARY_SENTIMENT, mode="score") as engine:
        assert engine.predict([Review(SARCASM)])[0].probabilities == first


def test_weights_that_are_missing_are_not_made_up(tuned: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in tuned.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tuned / "model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if ".layer.1." not in name},
        tmp_path / "model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    with pytest.raises(EngineError, match="16 weights of the encoder are missing"):
        EncoderEngine(str(tmp_path), BINARY_SENTIMENT)


def test_which_engine_fits(tuned: Path, tmp_path: Path) -> None:
    assert choose_kind("auto", str(tuned)) == "encoder"
    (tmp_path / "config.json").write_text('{"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}')
    assert choose_kind("auto", str(tmp_path)) == "transformers"
    with pytest.raises(ConfigError, match="no mode 'generate'"):
        build_engine("encoder", str(tuned), BINARY_SENTIMENT)


def test_an_engine_refuses_models_of_the_other_sort(tuned: Path, headless: Path, tmp_path: Path) -> None:
    # A language model under a random head answers like a classifier.
    language, several = tmp_path / "language", tmp_path / "several"
    for folder, kind in ((language, "Gemma3ForCausalLM"), (several, "Gemma3ForConditionalGeneration")):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"architectures": [kind]}))
        assert choose_kind("auto", str(folder)) == "transformers"
    pairs = [(kind, language) for kind in ("encoder", "onnx")] + [(kind, tuned) for kind in ("transformers", "vllm")]
    for kind, folder in [*pairs, ("encoder", several)]:
        with pytest.raises(ConfigError) as caught:
            split_by_prompt([(kind, str(folder))])
        assert choose_kind("auto", str(folder)) in (caught.value.next_step or "")
    allowed = [("vllm", language), ("encoder", headless), ("encoder", tuned), ("auto", tuned), ("vllm", "org/name")]
    assert split_by_prompt((kind, str(model)) for kind, model in allowed) == (
        [str(language), "org/name"], [str(headless), str(tuned), str(tuned)],
    )  # fmt: skip


def run_predict(*words: str) -> Any:
    return CliRunner().invoke(build_app(), ["predict", *words])


@pytest.mark.slow
def test_side_by_side(tuned: Path, headless: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text("很好\n\n太差\n", encoding="utf-8")
    train = tmp_path / "train.csv"
    train.write_text("label,text\n1,很好喜欢\n0,太差失望\n1,满意漂亮\n0,糟糕\n", encoding="utf-8")
    words = ["--model", str(tuned), "--model", str(headless), "--file", str(more), "--train_csv", str(train), SARCASM]
    done = run_predict(*words, "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["text"] for row in rows] == [SARCASM, "很好", "太差"]
    assert [answer["model"] for answer in rows[0]["answers"]] == [str(tuned), str(headless), "TF-IDF"]
    for row in rows:
        for answer in row["answers"]:
            assert answer["confidence"] == max(answer["probabilities"].values())
            assert answer["probabilities"][answer["label"]] == answer["confidence"]
    assert rows[2]["answers"][2]["label"] == "negative"
    table = run_predict("--model", str(tuned), SARCASM).stdout
    assert "蟑螂" in table
    assert f"{rows[0]['answers'][0]['label']} {rows[0]['answers'][0]['confidence']:.4f}" in " ".join(table.split())


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--model", "."], "No text given"),
        (["好"], "No model given"),
        (["好", "--model", "no/folder/here"], "This model does not exist"),
        (["好", "--model", "a/b", "--model", "a/b"], "A model is given twice"),
    ],
)
def test_what_predict_refuses(words: list[str], part: str) -> None:
    done = run_predict(*words)
    assert done.stdout == ""
    assert part in str(done.exception)


def test_models_side_by_side_are_asked_what_they_were_taught(
    tmp_path: Path, headless: Path, tuned: Path, repo_root: Path
) -> None:
    three = load_task(repo_root / "examples" / "tasks" / "three_classes.yaml")
    model = save_classifier(tmp_path / "three", headless, dict(enumerate(three.labels)))
    write_model_task(three, model)
    done = CliRunner().invoke(build_app(), ["predict", "很好", "--model", str(model), "--json"])
    assert list(json.loads(done.stdout)[0]["answers"][0]["probabilities"]) == list(three.labels)
    assert "three_classes" in done.stderr
    other = save_classifier(tmp_path / "two", headless, {0: "negative", 1: "positive"})
    write_model_task(BINARY_SENTIMENT, other)
    for words in (["--model", str(other)], ["--task", "binary_sentiment"]):
        refused = CliRunner().invoke(build_app(), ["predict", "很好", "--model", str(model), *words])
        assert isinstance(refused.exception, ConfigError)
