"""Kills comparisons at random moments and shows that the report is that of one that was left in peace.

`kill -9` of the comparison: the same command is given again until its report is there. `kill -9` of vLLM while it
answers: the comparison starts it again by itself. Each finished report is compared with the undisturbed one, all of
it but the times. Not covered: an answer that differs by rounding because its neighbours in a batch were others; such a
difference is shown, and has to be judged.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.atomic import write_json, write_text
from sentifactory.engines.vllm_process import is_vllm
from sentifactory.errors import EngineError
from sentifactory.evaluation.kill_records import KillRecord, format_records, list_differences, read_report
from sentifactory.progress import say
from sentifactory.supervisor import list_descendants

SHOWN_DIFFERENCES = 5
_SURVIVORS_END_WITHIN_S = 60.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class KillPlan:
    """One comparison that is run again and again.

    Attributes:
        words: the options of `sentifactory eval compare`, without its output file.
        folder: where its report goes.
    """

    words: Sequence[str]
    folder: Path

    @property
    def report(self) -> Path:
        """Where the report is written."""
        return self.folder / "report.json"

    def start(self) -> subprocess.Popen[bytes]:
        """Start the comparison, or the rest of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "sentifactory.cli", "eval", "compare", *self.words]
        with (self.folder / "output.log").open("ab") as log:
            return subprocess.Popen([*command, "--output_file", str(self.report)], stdout=log, stderr=log)

    def count_answers(self) -> int:
        """Return how many answers stand in the journals."""
        return sum(file.read_bytes().count(b'"position"') for file in self.folder.glob("report.predictions.*.jsonl"))

    def finish(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the end of a comparison.

        Raises:
            EngineError: when it ends with a fault.
        """
        if process.wait() != 0:
            log = self.folder / "output.log"
            raise EngineError(
                f"The comparison ended with exit code {process.returncode}", where=str(log), next_step="read the log"
            )


def bench_compare_kills(
    base_model: Annotated[str, typer.Option("--base_model", help="Folder of the base model.")],
    tuned_model: Annotated[str, typer.Option("--tuned_model", help="Folder of the tuned model.")],
    csv_path: Annotated[str, typer.Option("--csv_path", help="Reviews to ask about.")],
    engine: Annotated[str, typer.Option("--engine", help="vllm or transformers.")] = "vllm",
    max_samples: Annotated[int, typer.Option("--max_samples", help="Reviews.")] = 60,
    kills: Annotated[int, typer.Option("--kills", min=0, help="Times that the comparison is killed.")] = 20,
    vllm_kills: Annotated[
        int, typer.Option("--vllm_kills", min=0, help="Times that vLLM is killed; none with another engine.")
    ] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Chooses the moments.")] = 42,
    output_dir: Annotated[str, typer.Option("--output_dir", help="Where the figures go.")] = "saves/bench",
) -> None:
    """Kill comparisons, and vLLM below them, at random moments: is the finished report that of an undisturbed one?"""
    from sentifactory.evaluation.provenance import describe_machine, describe_versions

    folder = Path(output_dir)
    work = folder / "compare_kills"
    shutil.rmtree(work, ignore_errors=True)
    words = ["--base_model", base_model, "--finetuned_model", tuned_model, "--csv_path", csv_path]
    words += ["--engine", engine, "--max_samples", str(max_samples)]
    chance = random.Random(seed)  # noqa: S311 - moments, no secrets
    undisturbed = KillPlan(words, work / "undisturbed")
    say("undisturbed")
    start = time.monotonic()
    undisturbed.finish(undisturbed.start())
    wall_s = time.monotonic() - start
    expected = read_report(undisturbed.report)
    records = kill_comparisons(KillPlan(words, work / "killed"), kills, wall_s, expected, chance)
    if engine == "vllm":
        records += kill_servers(
            KillPlan(words, work / "server"), vllm_kills, len(expected["predictions"]), expected, chance
        )
    table = format_records(records, wall_s)
    facts = {
        "machine": describe_machine(),
        "versions": describe_versions([engine]),
        "engine": engine,
        "wall_s": wall_s,
    }
    write_json(folder / "compare_kills.json", facts | {"kills": [asdict(record) for record in records]})
    write_text(folder / "compare_kills.md", table + "\n")
    typer.echo(table)
    if any(record.differences or record.survivors for record in records):
        raise typer.Exit(1)
    shutil.rmtree(work)


def kill_comparisons(
    plan: KillPlan, kills: int, wall_s: float, expected: dict[str, Any], chance: random.Random
) -> list[KillRecord]:
    """Kill a comparison so many times, finishing it whenever a moment comes after its end, and at last.

    Args:
        plan: what is run.
        kills: how many times.
        wall_s: seconds that it takes undisturbed; moments are drawn from them.
        expected: the undisturbed report.
        chance: draws the moments.
    """
    records: list[KillRecord] = []
    open_records: list[KillRecord] = []
    while len(records) < kills or open_records:
        process = plan.start()
        started = time.monotonic()
        has_ended = True
        if len(records) < kills:
            has_ended = _wait(process, started + chance.uniform(0, wall_s))
        if has_ended:
            plan.finish(process)
            _settle(open_records, plan, expected)
            open_records = []
            continue
        below = list_descendants(process.pid)
        answers = plan.count_answers()
        process.kill()
        process.wait()
        record = KillRecord("comparison", round(time.monotonic() - started, 3), answers, _count_survivors(below))
        say(f"kill {len(records) + 1} of {kills}: after {record.after_s:.1f} s, {answers} answers written down")
        records.append(record)
        open_records.append(record)
    return records


def kill_servers(
    plan: KillPlan, kills: int, n_reviews: int, expected: dict[str, Any], chance: random.Random
) -> list[KillRecord]:
    """Kill vLLM so many times while it answers, in one comparison if it lasts long enough, else in several.

    Args:
        plan: what is run.
        kills: how many times.
        n_reviews: reviews that each of the two models is asked about.
        expected: the undisturbed report.
        chance: draws the moments, as numbers of answers, and the process of vLLM that is killed.

    Raises:
        EngineError: when a comparison does not go on by itself, or ends before vLLM could be killed.
    """
    records: list[KillRecord] = []
    while len(records) < kills:
        process = plan.start()
        killed = _kill_while_answering(plan, process, kills - len(records), n_reviews, chance)
        plan.finish(process)
        _settle(killed, plan, expected)
        if not killed:
            raise EngineError("All was answered before vLLM could be killed", next_step="ask more: --max_samples")
        records += killed
    return records


def _kill_while_answering(
    plan: KillPlan, process: subprocess.Popen[bytes], kills: int, n_reviews: int, chance: random.Random
) -> list[KillRecord]:
    started, last = time.monotonic(), 0
    records: list[KillRecord] = []
    for moment in sorted(chance.randrange(1, 2 * n_reviews) for _ in range(kills)):
        # Before the first answer of a server it is still starting, after the last one it is about to end.
        while (answers := plan.count_answers()) < max(moment, last + 1) or answers % n_reviews == 0:
            if process.poll() is not None:
                return records
            time.sleep(_POLL_S)
        victims = [pid for pid in list_descendants(process.pid) if is_vllm(pid)]
        with suppress(ProcessLookupError, IndexError):
            os.kill(chance.choice(victims), signal.SIGKILL)
            last = answers
            records.append(KillRecord("vLLM", round(time.monotonic() - started, 3), answers))
            say(f"vLLM killed, {answers} answers written down")
    return records


def _settle(records: list[KillRecord], plan: KillPlan, expected: dict[str, Any]) -> None:
    """Write into records how the finished report differs, and make room for the next one."""
    differences = list(list_differences(expected, read_report(plan.report)))[:SHOWN_DIFFERENCES]
    for record in records:
        record.differences = differences
    if not differences:
        shutil.rmtree(plan.folder)


def _wait(process: subprocess.Popen[bytes], until: float) -> bool:
    """Wait for a process until a moment; return whether it has ended."""
    try:
        process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _count_survivors(pids: Sequence[int]) -> int:
    """Return how many of the processes do not end within a minute."""
    deadline = time.monotonic() + _SURVIVORS_END_WITHIN_S
    while (alive := sum(_is_alive(pid) for pid in pids)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return alive


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
