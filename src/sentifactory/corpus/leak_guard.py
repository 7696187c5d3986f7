"""The leak check that training and comparison run by themselves, before they start.

Which files are held out from a training file is told by the manifest beside it; other test files are named by whoever
calls. Files that a manifest proves to share no text, by their bytes and by the rules of this version, are not compared
again. Not covered: `val_size` of a training YAML, a split that LLaMA-Factory draws within the training file itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sentifactory
from sentifactory.corpus.keys import make_keys
from sentifactory.corpus.leakage import LeakReport, check_seen
from sentifactory.corpus.manifest import hash_file
from sentifactory.corpus.near import describe_rule
from sentifactory.corpus.readers import read_seen
from sentifactory.corpus.seen import SeenFile, join_seen
from sentifactory.corpus.shared_texts import EXACT, NEAR
from sentifactory.errors import DataError, LeakError
from sentifactory.json_object import read_json_object
from sentifactory.model_task import MANIFEST
from sentifactory.task import BINARY_SENTIMENT

CLEAN = "clean"
LEAKS = "leaks"
UNKNOWN = "not checked"
_PAIRS_TOLD = 3
_PAIRS_KEPT = 20
_FOLD_TRAIN = re.compile(r"(fold_\d+)/train")


@dataclass(frozen=True, slots=True)
class TrainFile:
    """A file that is trained on.

    Attributes:
        path: in any form that `readers.read_seen` reads.
        max_rows: only the first so many rows are trained on; None: all.
    """

    path: Path
    max_rows: int | None = None


@dataclass(frozen=True, slots=True)
class LeakFinding:
    """What is known of test reviews among training reviews.

    Attributes:
        train_files: trained on.
        test_files: tested on.
        manifests: the manifests that prove some of the test files clean.
        report: of the comparison of all others; None where nothing had to be compared.
        problem: why not all was compared, as a sentence; "" where all was.
    """

    train_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()
    report: LeakReport | None = None
    problem: str = ""

    @property
    def status(self) -> str:
        """`clean`, `leaks`, or `not checked`."""
        if self.report is not None and not self.report.is_clean:
            return LEAKS
        return UNKNOWN if self.problem else CLEAN

    @property
    def n_leaked(self) -> int:
        """Number of test reviews that stand among the training reviews, exactly or nearly."""
        return 0 if self.report is None else sum(self.report.count_leaked().values())

    def summarise(self) -> str:
        """Return the finding in a sentence or two."""
        told = []
        if self.report is not None:
            told.append(self.report.summarise())
        if self.manifests:
            told.append(f"No text is shared, as {', '.join(self.manifests)} proves for these very files.")
        return " ".join([*told, self.problem] if self.problem else told)

    def refuse(self, *, next_step: str) -> None:
        """Stop what would test on reviews that were trained on.

        Raises:
            LeakError: when there is any leak, with the first pairs.
        """
        if self.status != LEAKS or self.report is None:
            return
        raise LeakError(
            f"{self.report.summarise().rstrip('.')}; {self.report.list_pairs(_PAIRS_TOLD)}",
            where=", ".join(self.test_files),
            expected="test reviews that training has never seen",
            next_step=next_step,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain data, with its first pairs."""
        found: dict[str, Any] = {
            "status": self.status,
            "summary": self.summarise(),
            "train_files": list(self.train_files),
            "test_files": list(self.test_files),
            "proven_by": list(self.manifests),
        }
        return found if self.report is None else found | {"compared": self.report.to_json(_PAIRS_KEPT)}


def find_leaks(train: Sequence[TrainFile], test: Sequence[Path]) -> LeakFinding:
    """Compare training files with test files, as far as no manifest has done so already.

    Args:
        train: at least one.
        test: at least one; a file that stands here twice counts once.

    Raises:
        DataError: when a file cannot be read as reviews.
    """
    findings = find_leaks_by_file(train, test)
    reports = [finding.report for finding in findings if finding.report is not None]
    report = None
    if reports:
        pairs = [pair for one in reports for pair in one.pairs]
        n_test, n_unparted = (sum(getattr(one, name) for one in reports) for name in ("n_test", "n_unparted_test"))
        report = replace(reports[0], n_test=n_test, pairs=pairs, n_unparted_test=n_unparted)
    manifests = dict.fromkeys(manifest for finding in findings for manifest in finding.manifests)
    test_files = tuple(file for finding in findings for file in finding.test_files)
    return LeakFinding(findings[0].train_files, test_files, tuple(manifests), report)


def find_readable(train: Sequence[TrainFile]) -> tuple[list[TrainFile], str]:
    """Return the training files that can be read, and why the first of the others cannot; "" where all can.

    A file of another kind (pictures, an instruction set in a form of its own) does not hide what the others hold.
    """
    readable, problem = [], ""
    for one in train:
        try:
            read_seen(one.path, BINARY_SENTIMENT, max_rows=one.max_rows, is_trained_on=True)
        except DataError as error:
            problem = problem or str(error)
        else:
            readable.append(one)
    return readable, problem


def find_leaks_by_file(train: Sequence[TrainFile], test: Sequence[Path]) -> list[LeakFinding]:
    """Do the same for each test file alone; the training files are read and searched once for all of them."""
    test = list(dict.fromkeys(test))
    proofs = {file: [find_proof(one.path, file) for one in train] for file in test}
    to_compare = {file: read_seen(file, BINARY_SENTIMENT) for file in test if not all(proofs[file])}
    whole = LeakReport(0, 0)
    if to_compare:
        whole = check_seen(_read_seen(train), join_seen(to_compare.values()))
    findings = []
    for file in test:
        manifests, report = tuple(dict.fromkeys(map(str, proofs[file]))), None
        if file in to_compare:
            tested = to_compare[file]
            own = {id(review) for review in tested.reviews}
            pairs = [pair for pair in whole.pairs if id(pair.test) in own]
            manifests, report = (
                (),
                replace(whole, n_test=len(tested.reviews), pairs=pairs, n_unparted_test=tested.n_unparted),
            )
        findings.append(LeakFinding(tuple(str(one.path) for one in train), (str(file),), manifests, report))
    return findings


def _read_seen(train: Sequence[TrainFile]) -> SeenFile:
    """Return what is trained on; reviews that an earlier file holds are left out of the later ones.

    A comparison is given the CSV and finds the JSONL that the model was trained on: the same reviews, to be told once.
    """
    known: set[str] = set()
    files = []
    for one in train:
        seen = read_seen(one.path, BINARY_SENTIMENT, max_rows=one.max_rows, is_trained_on=True)
        keys = make_keys([row.text for row in seen.reviews])
        files.append(
            replace(seen, reviews=[row for key, row in zip(keys, seen.reviews, strict=True) if key not in known])
        )
        known.update(keys)
    return join_seen(files)


def find_held_out(train_files: Sequence[Path]) -> list[Path]:
    """Return the val and test files that the manifests beside training files name, less those that are trained on.

    Of a fold the val part of the same fold is held out, and the test part of all.
    """
    found: dict[Path, None] = {}
    trained = set()
    for file in train_files:
        folder, manifest = find_manifest(file)
        if manifest is None:
            continue
        part = file.relative_to(folder).with_suffix("").as_posix()
        trained.add(folder / f"{part}.csv")
        beside = f"{part.rpartition('/')[0]}/val.csv".lstrip("/")
        found |= dict.fromkeys(folder / name for name in (beside, "test.csv") if name in manifest["outputs"])
    return [file for file in found if file not in trained and file.is_file()]


def find_proof(train_file: Path, test_file: Path) -> Path | None:
    """Return the manifest that proves that two files share no text, None where there is none.

    The manifest must have been written under the rules of this version, and name both files with their present bytes.
    """
    folder, manifest = find_manifest(train_file.resolve())
    if manifest is None or not test_file.resolve().is_relative_to(folder):
        return None
    names = [file.resolve().relative_to(folder).as_posix() for file in (train_file, test_file)]
    part, other = (name.rpartition(".")[0] for name in names)
    try:
        leaks = manifest["leak_check"]
        compared = {frozenset(pair) for pair in leaks["compared"]}
        is_proven = (
            leaks[EXACT] == leaks[NEAR] == 0
            and manifest["near_repeats"]["rule"] == describe_rule()
            and manifest["versions"]["sentifactory"] == sentifactory.__version__
            and all(frozenset((one, other)) in compared for one in _list_sources(part, manifest))
            and all(manifest["outputs"][name]["sha256"] == hash_file(folder / name) for name in names)
        )
    except (KeyError, TypeError, OSError):
        return None
    return folder / MANIFEST if is_proven else None


def _list_sources(part: str, manifest: dict[str, Any]) -> list[str]:
    """Return the parts whose rows a part is made of: a fold's training part of the other folds' val parts."""
    match = _FOLD_TRAIN.fullmatch(part)
    if match is None:
        return [part]
    return [name for name in manifest["parts"] if name.endswith("/val") and name != f"{match[1]}/val"]


def find_manifest(file: Path) -> tuple[Path, dict[str, Any] | None]:
    """Return the folder of the data set that a file belongs to, and its manifest; None where there is none."""
    for folder in (file.parent, file.parent.parent):
        manifest = read_json_object(folder / MANIFEST) or {}
        chapters = ("outputs", "leak_check", "near_repeats", "versions", "parts")
        if all(isinstance(manifest.get(name), dict) for name in chapters):
            return folder, manifest
    return file.parent, None
