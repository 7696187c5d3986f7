"""Export to ONNX: what is right passes the gate and answers like the checkpoint, what is broken leaves nothing."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_workshop import copy_graph

from sentifactory import cli
from sentifactory.engines.local.encoder_engine import EncoderEngine
from sentifactory.engines.local.onnx_engine import GRAPH_NAME, WEIGHTS_NAME, OnnxEngine
from sentifactory.engines.local.text_encoder import TextEncoder, split_by_tokens
from sentifactory.engines.registry import build_engine
from sentifactory.errors import ConfigError, EngineError
from sentifactory.evaluation.ladder import ladder
from sentifactory.evaluation.ladder.ladder import LadderOptions
from sentifactory.models.classifiers import encode_texts, load_classifier
from sentifactory.models.weights import hash_weights
from sentifactory.publishing.onnx import onnx_export
from sentifactory.publishing.onnx.onnx_graph import quantise_rows, save_graph, write_graph
from sentifactory.records import Review
from sentifactory.task.model_folder import read_model_task
from sentifactory.task.task import BINARY_SENTIMENT

pytestmark = pytest.mark.slow

Export = Callable[..., int]
HOSTILE = (
    "",
    " ",
    "[SEP] 很好 [CLS]",
    "太差[PAD][MASK]了",
    "</s><s>",
    "很" * 500,
    "😀 emoji\n\n🀄",
    "ＡＢＣ\u3000房间",
)


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, val_csv: Path, float32_graph: Path
) -> dict[str, Path]:
    """The same checkpoint as float32, as int8 and as int8 with calibration."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_export, "write_graph", copy_graph(float32_graph))
        patch.setattr(onnx_export, "measure_export", lambda *_: {})
        for kind in onnx_export.QUANTISE:
            limits = onnx_export.ParityLimits(flips=0.1, difference=0.05)
            options = onnx_export.ExportOptions(
                str(checkpoint), folder / kind, str(val_csv), quantise=kind, limits=limits
            )
            onnx_export.export_checkpoint(options)
    return {kind: folder / kind for kind in onnx_export.QUANTISE}


@pytest.fixture
def export(checkpoint: Path, val_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    """Run the command; return its exit code."""

    def run(*words: str, output: str = "out") -> int:
        arguments = [str(checkpoint), "--output_dir", str(tmp_path / output), "--val_path", str(val_csv), *words]
        monkeypatch.setattr(sys, "argv", ["sentifactory", "export", "onnx", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


def test_the_command_writes_model_proof_and_speed(
    export: Export, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkpoint / "run.json").write_text('{"speed": {"train_time_s": 7}}')
    try:
        assert export("--json", "--max_flips", "0.1", "--max_difference", "0.05") == 0
    finally:
        (checkpoint / "run.json").unlink()
    facts = json.loads(capsys.readouterr().out)
    assert facts == json.loads((tmp_path / "out" / "export.json").read_text())
    assert read_model_task(tmp_path / "out") == BINARY_SENTIMENT
    assert (facts["task"]["name"], facts["task"]["source"]) == ("binary_sentiment", "default")
    assert facts["parity_float32"]["flips"] == 0
    assert facts["parity_float32"]["difference_max"] < 1e-5
    assert 0 < facts["parity"]["difference_mean"] < 0.05
    assert facts["parity"]["reviews"] == 32, "a fifth is for calibration"
    assert abs(facts["parity"]["accuracy"] - facts["parity"]["accuracy_checkpoint"]) <= 0.1
    speed = facts["speed"]
    assert 0 < speed["latency_p50_s"] <= speed["latency_p95_s"] <= speed["latency_p99_s"]
    assert speed["reviews_per_s"] > 0
    assert 20 * 2**20 < speed["peak_bytes"] < 400 * 2**20, "neither torch nor transformers is loaded"
    assert str(facts["threads"]["best"]) in facts["threads"]["reviews_per_s"]
    assert (tmp_path / "out" / "run.json").is_file(), "what it was trained on stays known"
    assert set(hash_weights(tmp_path / "out")) == {GRAPH_NAME, WEIGHTS_NAME}


def test_a_checkpoint_and_its_int8_form_are_entries_of_the_ladder(
    exported: dict[str, Path], checkpoint: Path, val_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "run_in_own_process", lambda key, inputs: (ladder.run_entry(key, inputs), 1))
    train_csv = tmp_path / "train.csv"
    train_csv.write_text("label,text\n" + "0,房间又脏又旧\n1,早餐丰富服务周到\n" * 5, encoding="utf-8")
    options = LadderOptions(
        csv_path=str(val_csv), train_csv=str(train_csv), encoder_models=(str(checkpoint), str(exported["dynamic"]))
    )
    entries = ladder.run_ladder(options)["rungs"]
    plain, int8 = entries["encoder_1"], entries["encoder_2"]
    assert plain["title"]["en"] == "Encoder, encoder"
    assert int8["title"]["en"] == "Encoder, dynamic (ONNX, int8, dynamic)"
    assert abs(plain["metrics"]["accuracy"] - int8["metrics"]["accuracy"]) <= 0.1
    assert set(int8["weights"]) == {GRAPH_NAME, WEIGHTS_NAME}
    alone = ladder.run_ladder(replace(options, encoder_models=(str(exported["dynamic"]),)))["rungs"]["encoder"]
    assert alone["title"]["en"] == "Encoder, tuned (ONNX, int8, dynamic)"
    assert alone["metrics"] == int8["metrics"]


def test_int8_reaches_embeddings_and_layers(exported: dict[str, Path]) -> None:
    import onnx
    from onnx import TensorProto

    sizes = {kind: (folder / WEIGHTS_NAME).stat().st_size for kind, folder in exported.items()}
    assert sizes["dynamic"] < 0.45 * sizes["none"]
    assert sizes["static"] < 0.45 * sizes["none"]
    graph = onnx.load(str(exported["dynamic"] / GRAPH_NAME)).graph
    operations = [node.op_type for node in graph.node]
    assert operations.count("MatMulInteger") == 3 * 6 + 1, "six products with weights in a layer, and the head"
    large = [tensor for tensor in graph.initializer if len(tensor.dims) == 2 and min(tensor.dims) >= 32]
    assert large
    assert TensorProto.FLOAT not in {tensor.data_type for tensor in large}
    assert (exported["dynamic"] / WEIGHTS_NAME).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("kind", onnx_export.QUANTISE)
def test_it_answers_like_the_checkpoint(
    kind: str, exported: dict[str, Path], checkpoint: Path, reviews: list[Review]
) -> None:
    asked = [*reviews, *map(Review, HOSTILE)]
    with (
        EncoderEngine(str(checkpoint), BINARY_SENTIMENT, device="cpu") as before,
        build_engine("auto", str(exported[kind]), BINARY_SENTIMENT, mode="score") as after,
    ):
        assert isinstance(after, OnnxEngine)
        one, other = before.predict(asked), after.predict(asked)
    assert {answer.label for answer in one} == {0, 1}
    shares = np.array([[answer.probabilities for answer in answers] for answers in (one, other)])
    assert np.abs(shares[0] - shares[1]).mean() < (1e-6 if kind == "none" else 0.03)
    assert sum(left.label != right.label for left, right in zip(one, other, strict=True)) <= (kind != "none") * 4


def turn_head(folder: Path) -> None:
    """Change the weights of the head, and nothing else: they get the other sign."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(folder / GRAPH_NAME))
    head = next(
        tensor
        for tensor in graph.graph.initializer
        if "classifier.classifier.weight" in tensor.name and sorted(tensor.dims) == [2, 32]
    )
    head.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(head), head.name))
    save_graph(graph, folder)


@pytest.mark.parametrize("stage", ["write_graph", "quantise_graph"])
def test_a_broken_export_is_refused_and_leaves_nothing(
    stage: str,
    export: Export,
    float32_graph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(onnx_export, "write_graph", copy_graph(float32_graph))
    right = getattr(onnx_export, stage)

    def break_it(*words: Any) -> None:
        right(*words)
        turn_head(words[1] if stage == "write_graph" else words[0])

    monkeypatch.setattr(onnx_export, stage, break_it)
    assert export("--max_flips", "0.1", "--max_difference", "0.05", output="new/out") == 2
    told = capsys.readouterr().err
    assert ("The float32 graph" if stage == "write_graph" else "The int8 model") in told
    assert "answers differently from the checkpoint" in told
    assert not (tmp_path / "new").exists()


def test_a_limit_that_int8_cannot_keep_refuses_it_and_the_older_export_stays(
    export: Export, float32_graph: Path, exported: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "write_graph", copy_graph(float32_graph))
    shutil.copytree(exported["none"], tmp_path / "out")
    assert export("--max_difference", "1e-7") == 2
    assert hash_weights(tmp_path / "out") == hash_weights(exported["none"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--max_flips", "2"], "--max_flips is 2"),
        (["--max_difference", "-1"], "--max_difference is -1"),
        (["--quantise", "int3"], "none, dynamic, static"),
        (["--opset", "11"], "--opset is 11"),
        (["--quantise", "static", "--max_samples", "1"], "at least two reviews"),
    ],
)
def test_options_that_make_no_sense(
    words: list[str], told: str, export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(*words) == 2
    assert told in capsys.readouterr().err


def test_what_stands_in_the_folder_is_not_removed(
    export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    precious = tmp_path / "out" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    assert export() == 2
    assert "choose another --output_dir" in capsys.readouterr().err
    assert precious.read_text() == "years of work"


def test_batches_do_not_depend_on_the_order(exported: dict[str, Path], reviews: list[Review]) -> None:
    shuffled = random.Random(3).sample(range(len(reviews)), len(reviews))
    with OnnxEngine(str(exported["dynamic"]), BINARY_SENTIMENT, batch_tokens=200) as engine:
        one = engine.predict(reviews)
        told: list[int] = []
        other = engine.predict([reviews[at] for at in shuffled], lambda place, _: told.append(place))
    assert sorted(told) == list(range(len(reviews)))
    assert told != sorted(told), "longest first"
    assert [other[place].probabilities for place in range(40)] == [one[at].probabilities for at in shuffled]
    with OnnxEngine(str(exported["none"]), BINARY_SENTIMENT, threads=1) as engine:
        assert engine.threads == 1
        alone = [engine.predict([review])[0].probabilities for review in reviews]
        together = [answer.probabilities for answer in engine.predict(reviews)]
    assert np.array(alone) == pytest.approx(np.array(together), abs=1e-5)


def test_texts_become_the_same_tokens(exported: dict[str, Path], checkpoint: Path, reviews: list[Review]) -> None:
    facts = json.loads((exported["none"] / "export.json").read_text())["text"]
    texts = [*(review.text for review in reviews), *HOSTILE]
    ours = TextEncoder(exported["none"] / "tokenizer.json", facts).encode(texts)
    tokenizer = load_classifier(str(checkpoint), BINARY_SENTIMENT).tokenizer
    assert ours == encode_texts(tokenizer, texts, facts["max_length"])
    assert max(map(len, ours)) == 64
    for row in ours:
        assert not set(row[1:-1]) & set(facts["control_ids"])


def test_a_file_that_was_changed_later_is_refused(exported: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported["dynamic"], folder)
    weights = bytearray((folder / WEIGHTS_NAME).read_bytes())
    weights[len(weights) // 2] ^= 1
    (folder / WEIGHTS_NAME).write_bytes(weights)
    with pytest.raises(EngineError, match="has changed since the export"):
        OnnxEngine(str(folder), BINARY_SENTIMENT)
    (folder / WEIGHTS_NAME).unlink()
    with pytest.raises(EngineError, match="is missing"):
        OnnxEngine(str(folder), BINARY_SENTIMENT)
    (folder / "export.json").write_text("{")
    with pytest.raises(EngineError, match="sentifactory export onnx CHECKPOINT"):
        OnnxEngine(str(folder), BINARY_SENTIMENT)


def test_it_writes_nothing_so_it_has_one_mode(exported: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="--mode score"):
        build_engine("onnx", str(exported["none"]), BINARY_SENTIMENT, mode="generate")


def test_serving_loads_neither_torch_nor_transformers(exported: dict[str, Path]) -> None:
    program = (
        "import sys\n"
        "from sentifactory.engines.registry import build_engine\n"
        "from sentifactory.records import Review\n"
        "from sentifactory.task.task import BINARY_SENTIMENT\n"
        "with build_engine('onnx', sys.argv[1], BINARY_SENTIMENT, mode='score') as engine:\n"
        "    engine.predict([Review('很好')])\n"
        "print([name for name in ('torch', 'transformers', 'pandas', 'sklearn') if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", program, str(exported["none"])]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_the_standard_head_is_exported_as_well(tmp_path: Path, checkpoint: Path, reviews: list[Review]) -> None:
    """BertForSequenceClassification, asked in shapes that the exporter has not seen."""
    import onnxruntime
    import torch
    from transformers import AutoConfig, BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(AutoConfig.from_pretrained(checkpoint).trunk).eval()
    write_graph(model, tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / GRAPH_NAME))
    for shape in ((1, 1), (3, 5), (9, 64)):
        ids = torch.randint(5, 60, shape)
        mask = torch.ones_like(ids)
        mask[-1, shape[1] // 2 + 1 :] = 0
        with torch.inference_mode():
            expected = model(input_ids=ids, attention_mask=mask).logits.numpy()
        given = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        assert session.run(["logits"], given)[0] == pytest.approx(expected, abs=1e-5)


def test_rows_of_a_table_keep_a_scale_each() -> None:
    dice = np.random.default_rng(0)
    table = (dice.normal(size=(50, 16)) * 10.0 ** dice.integers(-4, 4, size=(50, 1))).astype(np.float32)
    rows, scales = quantise_rows(table)
    assert rows.dtype == np.int8
    assert np.all(np.abs(rows * scales - table) <= scales * 0.501)
    assert np.abs(rows).max(axis=1).min() == 127


def test_a_batch_holds_as_many_tokens_as_it_may() -> None:
    dice = random.Random(1)
    rows = [[1] * dice.randint(1, 90) for _ in range(300)]
    batches = list(split_by_tokens(rows, 256))
    assert sorted(at for batch in batches for at in batch) == list(range(300))
    assert all(len(batch) * len(rows[batch[0]]) <= 256 for batch in batches)
    assert all((len(batch) + 1) * len(rows[batch[0]]) > 256 for batch in batches[:-1])
    assert list(split_by_tokens([[1] * 300], 256)) == [[0]]
    assert list(split_by_tokens([], 256)) == []
