"""Tasks other than the default one, from a file of reviews to the service; only `data prepare` is told which."""

from __future__ import annotations

import csv
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from forked_commands import serve_forked
from tiny_models import link_model
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.task.model_folder import read_model_task
from sentifactory.task.task_file import load_task
from sentifactory.ui.actions import PageActions
from sentifactory.ui.workspace import open_workspace

pytestmark = pytest.mark.slow

N_REVIEWS = 120
FILLERS = "书房店菜人天水电机屏纸字床路车站早晚前后左右中大小多少新旧快慢冷热"
ENGLISH_FILLERS = [
    "room",
    "book",
    "screen",
    "food",
    "staff",
    "price",
    "street",
    "night",
    "page",
    "door",
    "lift",
    "bed",
]


@dataclass(frozen=True, slots=True)
class Workflow:
    """A task, the recipe that it is trained by, and a file of reviews as a user would have it.

    Attributes:
        task: name of the file under examples/tasks.
        recipe: path under examples.
        column: of the labels in the file.
        cues: the value in that column, and what the reviews under it say, by label.
        joint: stands between the words of a review.
    """

    task: str
    recipe: str
    column: str
    cues: tuple[tuple[str, tuple[str, ...]], ...]
    joint: str = ""


FREEZE = "train_freeze/gemma3_270m_freeze_demo.yaml"
WORKFLOWS = [
    Workflow(
        "english_sentiment", "train_freeze/gemma3_270m_freeze_english.yaml", "label",
        (("negative", ("awful", "dirty", "broken")), ("positive", ("lovely", "clean", "superb"))), " ",
    ),
    Workflow(
        "star_rating", FREEZE, "评分",
        (("1", ("糟糕",)), ("2", ("失望",)), ("3", ("一般",)), ("4", ("不错",)), ("5", ("完美",))),
    ),
    Workflow(
        "aspect_service", FREEZE, "服务",
        (("差", ("态度冷淡",)), ("未提及", ("位置方便",)), ("好", ("服务周到",))),
    ),
]  # fmt: skip


def write_reviews(path: Path, workflow: Workflow) -> None:
    dice = random.Random(3)
    fillers = ENGLISH_FILLERS if workflow.joint else list(FILLERS)
    rows = [
        (value, workflow.joint.join([*dice.choices(fillers, k=8), dice.choice(words), *dice.choices(fillers, k=6)]))
        for _ in range(N_REVIEWS // len(workflow.cues))
        for value, words in workflow.cues
    ]
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([(workflow.column, "text"), *rows])


def count_rows(path: Path) -> int:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return sum(1 for _ in csv.DictReader(stream))


def run(*words: str | Path) -> str:
    """Run a command of the project in this process; return what it prints on stdout."""
    done = CliRunner().invoke(build_app(), [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def ask_service(model: Path, text: str) -> dict[str, Any]:
    """Serve a model with transformers and return the answer to one text."""
    words = ["sentifactory", "serve", model, "--engine", "transformers", "--port", "0"]
    with serve_forked(*words, folder=model) as (service, said):
        port = next(found.group(1) for line in said if (found := re.search(r":(\d+)/predict", line)))
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", json={"text": text}, trust_env=False, timeout=60)
        service.terminate()
        service.join(30)
        assert service.exitcode == 0
        return dict(answer.raise_for_status().json())


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.task)
def test_a_task_goes_from_file_to_service(
    workflow: Workflow, repo_root: Path, short_gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task_file = repo_root / "examples" / "tasks" / f"{workflow.task}.yaml"
    task = load_task(task_file)
    write_reviews(tmp_path / "reviews.csv", workflow)
    words = ["--label_column", workflow.column, "--val_size", "32", "--test_size", "24", "--batch_size", "4"]
    run("data", "prepare", "reviews.csv", "--task", task_file, "--name", "mine", "--output_dir", "data", *words)
    data = tmp_path / "data" / "mine"
    counts = [count_rows(data / f"{part}.csv") for part in ("train", "val", "test", "rejected")]
    n_test = counts[2]
    assert sum(counts) == N_REVIEWS  # what is left out, so that the labels are balanced, is listed

    tuned = tmp_path / "saves" / "tuned"
    settings = {
        "model_name_or_path": short_gemma, "dataset_dir": tmp_path / "data", "dataset": "mine_train",
        "eval_dataset": "mine_val", "output_dir": tuned, "max_steps": 2, "freeze_trainable_layers": 1,
        "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "eval_steps": 2, "save_steps": 2,
        "plot_loss": "false", "preprocessing_num_workers": 1,
    }  # fmt: skip
    run("train", repo_root / "examples" / workflow.recipe, *(f"{key}={value}" for key, value in settings.items()))
    assert read_model_task(tuned) == task

    # One text, asked in five ways of one model: the labels are the task's, and the probabilities agree.
    with (data / "test.csv").open(encoding="utf-8", newline="") as stream:
        text = next(csv.DictReader(stream))["text"]
    (row,) = json.loads(run("predict", text, "--model", tuned, "--json"))
    shares = row["answers"][0]["probabilities"]
    assert list(shares) == list(task.labels)
    asked = ["--engine", "transformers"]
    run("label", data / "test.csv", "labelled.csv", "--model", tuned, *asked)
    with Path("labelled.csv").open(encoding="utf-8-sig", newline="") as stream:
        labelled = list(csv.DictReader(stream))
    assert len(labelled) == n_test
    assert labelled[0]["text"] == text
    assert labelled[0]["predicted_label"] == row["answers"][0]["label"]
    assert float(labelled[0]["probability"]) == pytest.approx(max(shares.values()), abs=1e-4)
    served = ask_service(tuned, text)
    assert served["probabilities"] == pytest.approx(shares, abs=1e-4)
    assert served["label"] == row["answers"][0]["label"]

    report_file = Path("saves/comparison/report.json")
    words = ["--base_model", short_gemma, "--finetuned_model", tuned, "--train_csv", data / "train.csv"]
    words += ["--csv_path", data / "test.csv", "--val_path", data / "val.csv", "--mode", "score"]
    run("eval", "compare", *words, *asked, "--output_file", report_file)
    report = json.loads(report_file.read_text(encoding="utf-8"))
    assert report["task"]["labels"] == list(task.labels)

    # The labels of a random model stand so close that bfloat16 flips one in thirty.
    other = tmp_path / "saves" / "float32"
    run("export", "dtype", tuned, "--output_dir", other, "--val_path", data / "val.csv", "--dtype", "float32")
    assert read_model_task(other) == task
    words = ["--repo_id", "me/mine", "--license", "apache-2.0", "--data_license", "cc-by-4.0", "--force", "--dry_run"]
    plan = json.loads(run("publish", tuned, "--report", report_file, *words, "--json"))
    assert "sentifactory_task.json" in json.dumps(plan)

    (tmp_path / "pretrained").mkdir()
    link_model(short_gemma, tmp_path / "pretrained" / "short_gemma")
    page = PageActions(open_workspace(tmp_path / "page"), (tmp_path / "saves", tmp_path / "pretrained"), ())
    tuned_name, base_name = "saves/tuned", next(name for name in page.find_models() if name.endswith("short_gemma"))
    shown = page.predict(text, base_name, tuned_name)
    (row,) = json.loads(run("predict", text, "--model", tuned, "--json"))  # the comparison has calibrated it
    shares = row["answers"][0]["probabilities"]
    bars = [float(value) for value in re.findall(r'class="value">([\d.]+)%', shown)]
    assert bars[len(task.labels) :] == pytest.approx([100 * share for share in shares.values()], abs=0.06)
    name, _ = page.compare(base_name, tuned_name, str(data / "test.csv"), None)
    compared = json.loads((page.workspace.reports / name / "report.json").read_text(encoding="utf-8"))
    assert compared["task"]["labels"] == list(task.labels)
