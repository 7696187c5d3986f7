"""The automatic leak check before training and comparison.

The manifest next to a training file names the files that are held out from it; callers name other test files. Files
that a manifest proves to share no text, by their hashes and the rules of this version, are not compared again. Not
covered: `val_size` of a training YAML, a split that LLaMA-Factory makes within the training file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sentifactory
from sentifactory.corpus.cleaning.near_duplicates import describe_rule
from sentifactory.corpus.cleaning.text_keys import make_keys
from sentifactory.corpus.leakage.leak_report import LeakReport, check_seen
from sentifactory.corpus.leakage.overlap import EXACT, NEAR
from sentifactory.corpus.reading.review_files import read_seen
from sentifactory.corpus.reading.seen_texts import SeenFile, join_seen
from sentifactory.errors import DataError, LeakError
from sentifactory.system.fingerprint import hash_file
from sentifactory.task.model_folder import MANIFEST, iter_manifests
from sentifactory.task.task import BINARY_SENTIMENT

CLEAN = "clean"
LEAKS = "leaks"
UNKNOWN = "not checked"
_PAIRS_IN_ERROR = 3
_PAIRS_IN_JSON = 20
_FOLD_TRAIN = re.compile(r"(fold_\d+)/train")


@dataclass(frozen=True, slots=True)
class TrainFile:
    """A training file.

    Attributes:
        path: in any format that `review_files.read_seen` reads.
        max_rows: only the first rows are trained on; None: all.
    """

    path: Path
    max_rows: int | None = None


@dataclass(frozen=True, slots=True)
class LeakFinding:
    """The result of a leak check.

    Attributes:
        train_files: the training files.
        test_files: the test files.
        manifests: the manifests that prove some of the test files clean.
        report: on the comparison of all others; None where nothing had to be compared.
        problem: why not everything was compared, as a sentence; "" if everything was.
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
        """Number of test reviews among the training texts, exactly or nearly."""
        return 0 if self.report is None else sum(self.report.count_leaked().values())

    def call(self, *, seen_as: str = "training", held_as: str = "test") -> LeakFinding:
        """Return the finding with other names for the two kinds of reviews."""
        return (
            self
            if self.report is None
            else replace(self, report=replace(self.report, seen_as=seen_as, held_as=held_as))
        )

    def summarise(self) -> str:
        """Return the finding in a sentence or two."""
        sentences = []
        if self.report is not None:
            sentences.append(self.report.summarise())
        if self.manifests:
            sentences.append(f"No text is shared, as {', '.join(self.manifests)} proves for exactly these files.")
        return " ".join([*sentences, self.problem] if self.problem else sentences)

    def refuse(self, *, next_step: str) -> None:
        """Raise a LeakError with the first pairs if there is any leak."""
        if self.status != LEAKS or self.report is None:
            return
        raise LeakError(
            f"{self.report.summarise().rstrip('.')}; {self.report.list_pairs(_PAIRS_IN_ERROR)}",
            where=", ".join(self.test_files),
            expected=f"{self.report.held_as} reviews that are not among the {self.report.seen_as} reviews",
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
        return found if self.report is None else found | {"compared": self.report.to_json(_PAIRS_IN_JSON)}


def find_leaks(train: Sequence[TrainFile], test: Sequence[Path]) -> LeakFinding:
    """Compare training files with test files, except those that a manifest proves clean.

    Args:
        train: at least one.
        test: at least one; a file that is given twice counts once.

    Raises:
        DataError: when a file cannot be read as reviews.
    """
    return join_findings(find_leaks_by_file(train, test))


def join_findings(findings: Sequence[LeakFinding]) -> LeakFinding:
    """Join the findings on several test files, at least one."""
    reports = [finding.report for finding in findings if finding.report is not None]
    report = None
    if reports:
        report = replace(
            reports[0],
            n_test=sum(one.n_test for one in reports),
            pairs=[pair for one in reports for pair in one.pairs],
            n_unsplit_test=sum(one.n_unsplit_test for one in reports),
        )
    manifests = dict.fromkeys(manifest for finding in findings for manifest in finding.manifests)
    test_files = tuple(file for finding in findings for file in finding.test_files)
    return LeakFinding(findings[0].train_files, test_files, tuple(manifests), report)


def find_known_leaks(train: Sequence[TrainFile], test: Sequence[Path]) -> tuple[list[LeakFinding], str]:
    """Compare each test file with those training files that can be read as reviews.

    Training on data of another kind (images, instructions in another form) is allowed, and does not prevent the check
    of the other files.

    Returns:
        The findings, none where nothing could be compared; and why not everything was compared, as a sentence.
    """
    try:
        return find_leaks_by_file(train, test), ""
    except DataError as error:
        cause = error
    readable, why = find_readable(train)
    if readable and why:
        try:
            found = find_leaks_by_file(readable, test)
        except DataError as error:
            cause = error
        else:
            return found, f"Not everything was compared, because a file cannot be read as reviews: {why}"
    return [], f"Nothing was compared, because a file cannot be read as reviews: {cause}"


def find_readable(train: Sequence[TrainFile]) -> tuple[list[TrainFile], str]:
    """Return the training files that can be read, and why the first of the others cannot; "" if all can."""
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
    """Return the finding on each test file; the training files are read and searched once for all of them."""
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
                replace(whole, n_test=len(tested.reviews), pairs=pairs, n_unsplit_test=tested.n_unsplit),
            )
        findings.append(LeakFinding(tuple(str(one.path) for one in train), (str(file),), manifests, report))
    return findings


def _read_seen(train: Sequence[TrainFile]) -> SeenFile:
    """Return all training texts, without the reviews of later files that are in an earlier one.

    A comparison may be given the CSV and find the JSONL of the same reviews, which are reported once.
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
    """Return the val and test files in the manifests next to training files, except those that are trained on.

    Of a fold its own val part is held out, and the common test part.
    """
    found: dict[Path, None] = {}
    trained = set()
    for file in train_files:
        if (known := find_manifest(file)) is None:
            continue
        folder, name, manifest = known
        part = name.rpartition(".")[0]
        trained.add(folder / f"{part}.csv")
        val = f"{part.rpartition('/')[0]}/val.csv".lstrip("/")
        found |= dict.fromkeys(folder / name for name in (val, "test.csv") if name in manifest["outputs"])
    return [file for file in found if file not in trained and file.is_file()]


def find_proof(train_file: Path, test_file: Path) -> Path | None:
    """Return the manifest that proves that two files share no text, None where there is none.

    The manifest must have been written under the rules of this version and list both files with their current hashes.
    """
    known = find_manifest(train_file.resolve())
    if known is None or not test_file.resolve().is_relative_to(known[0]):
        return None
    folder, _, manifest = known
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
    """Return the parts whose rows a part consists of: for a fold's training part, the other folds' val parts."""
    match = _FOLD_TRAIN.fullmatch(part)
    if match is None:
        return [part]
    return [name for name in manifest["parts"] if name.endswith("/val") and name != f"{match[1]}/val"]


def find_manifest(file: Path) -> tuple[Path, str, dict[str, Any]] | None:
    """Return folder, name of the file in it and manifest of the data set that a file belongs to; None if to none."""
    chapters = ("outputs", "leak_check", "near_repeats", "versions", "parts")
    for folder, name, manifest in iter_manifests(file):
        if all(isinstance(manifest.get(chapter), dict) for chapter in chapters):
            return folder, name, manifest
    return None
