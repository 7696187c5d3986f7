"""How many small faults in the code would its tests notice? A mutation score, from a random sample of mutants.

mutmut changes one thing at a time (a comparison, a number, an argument, a string ...) in a copy of the repository and
runs the quick tests of the room that the change is in. A mutant that no test notices is a fault that would pass. All
mutants of these rooms would take a day, so a sample is drawn and its score comes with an interval. Not covered: what
tests marked `slow` or `vllm` would notice, and what a test reaches in another process alone.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.atomic import write_json, write_text
from sentifactory.errors import ConfigError
from sentifactory.evaluation.formats import format_percent
from sentifactory.evaluation.markdown import build_table
from sentifactory.evaluation.mutants import Mutant
from sentifactory.evaluation.mutation_run import Room, Workshop
from sentifactory.progress import say

ROOMS = {
    "task": Room(
        "task",
        ("src/sentifactory/task.py", "src/sentifactory/task_files.py"),
        ("tests/test_task.py", "tests/test_task_files.py"),
    ),
    "corpus": Room("corpus", ("src/sentifactory/corpus/*.py",), ("tests/corpus",)),
    "evaluation": Room("evaluation", ("src/sentifactory/evaluation/*.py",), ("tests/evaluation",)),
}
# A mutant that never ends would be noticed, if not by an assertion.
_NOTICED = ("killed", "timeout")
# In the order of the table; mutmut's word for a mutant whose function no test calls is "no tests".
_COLUMNS = {"killed": "killed", "timeout": "timeout", "survived": "survived", "not covered": "no tests"}


@dataclass(frozen=True, slots=True)
class RoomScore:
    """What came of the sample of one room.

    Attributes:
        room: its name.
        mutants: how many mutmut wrote.
        left_out: of these, how many were not to be drawn, by reason.
        statuses: (n_sampled,) by the mutant's name: `killed`, `timeout`, `survived`, `no tests`, or what else mutmut
            says, such as `segfault`.
        unnoticed: the mutants of the sample that are neither killed nor out of time.
        wall_s: seconds that it took.
    """

    room: str
    mutants: int
    left_out: dict[str, int]
    statuses: dict[str, str]
    unnoticed: list[Mutant]
    wall_s: float

    def describe(self) -> dict[str, Any]:
        """Return the figures as plain JSON values; those not covered count as not noticed."""
        return {**asdict(self), **score_statuses(self.statuses)}


def bench_mutations(
    rooms: Annotated[str, typer.Option("--rooms", help="Parts of the package, with commas between.")] = ",".join(
        ROOMS
    ),
    samples: Annotated[int, typer.Option("--samples", min=1, help="Mutants to test in each room.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Chooses the mutants.")] = 42,
    output_dir: Annotated[str, typer.Option("--output_dir", help="Where the figures go.")] = "saves/bench",
) -> None:
    """Change the code at random places, one at a time, and count how often its tests notice.

    Runs in the root of the repository, and works in a copy of it.
    """
    from sentifactory.evaluation.provenance import describe_machine

    folder = Path(output_dir)
    facts = {"machine": describe_machine(), "samples": samples, "seed": seed}
    results: list[RoomScore] = []
    for room in choose_rooms(rooms):
        results.append(bench_room(room, samples, seed, folder / f"mutations_{room.name}.log"))
        write_json(folder / "mutations.json", facts | {"rooms": [result.describe() for result in results]})
        write_text(folder / "mutations.md", format_results(results, seed))
    typer.echo(format_results(results, seed))


def choose_rooms(names: str) -> list[Room]:
    """Return the rooms of these names, with commas between them.

    Raises:
        ConfigError: when there is no room of such a name.
    """
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in ROOMS]
    if unknown or not chosen:
        raise ConfigError(
            f"There is no room {', '.join(unknown) or names!r} to mutate", where="--rooms", expected=", ".join(ROOMS)
        )
    return [ROOMS[name] for name in chosen]


def bench_room(room: Room, samples: int, seed: int, log: Path) -> RoomScore:
    """Test a random sample of the mutants of one room in a copy of the repository.

    Raises:
        EngineError: when mutmut cannot run, or the tests fail without a mutant.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sentifactory-mutants-") as name:
        workshop = Workshop(Path(name).resolve(), room, log.resolve())
        workshop.set_up(Path.cwd())
        say(f"{room.name}: writing mutants")
        mutants = workshop.write_mutants(Path.cwd())
        sample = draw_sample(mutants, samples, seed)
        say(f"{room.name}: {len(sample)} of {len(mutants)} mutants")
        statuses = workshop.test_mutants([mutant.name for mutant in sample])
    return RoomScore(
        room=room.name,
        mutants=len(mutants),
        left_out=dict(Counter(mutant.left_out for mutant in mutants if mutant.left_out)),
        statuses=statuses,
        unnoticed=[mutant for mutant in sample if statuses[mutant.name] not in _NOTICED],
        wall_s=round(time.monotonic() - start, 1),
    )


def draw_sample(mutants: Sequence[Mutant], samples: int, seed: int) -> list[Mutant]:
    """Return so many of the mutants that are not left out, or all where there are fewer, in the order of the code."""
    candidates = [mutant for mutant in mutants if not mutant.left_out]
    positions = random.Random(seed).sample(range(len(candidates)), min(samples, len(candidates)))  # noqa: S311
    return [candidates[position] for position in sorted(positions)]


def score_statuses(statuses: Mapping[str, str]) -> dict[str, Any]:
    """Return how many mutants were noticed, as a share with its Wilson interval.

    Example:
        >>> score_statuses({"a": "killed", "b": "timeout", "c": "no tests", "d": "survived"})["score"]
        0.5
    """
    from sentifactory.evaluation.significance import compute_wilson_interval

    noticed = sum(status in _NOTICED for status in statuses.values())
    return {
        "sampled": len(statuses),
        "counts": dict(Counter(statuses.values())),
        "score": noticed / len(statuses),
        "interval": asdict(compute_wilson_interval(noticed, len(statuses))),
    }


def format_results(results: Sequence[RoomScore], seed: int) -> str:
    """Return the scores as a Markdown table, and below it what was left out and what no test noticed."""
    rows = [["room", "mutants", "left out", "sampled", *_COLUMNS, "other", "score", "95 %", "minutes"]]
    for result in results:
        figures = score_statuses(result.statuses)
        counts = [figures["counts"].get(status, 0) for status in _COLUMNS.values()]
        low, high = (format_percent(figures["interval"][bound]) for bound in ("low", "high"))
        row: list[object] = [result.room, result.mutants, sum(result.left_out.values()), figures["sampled"], *counts]
        row += [figures["sampled"] - sum(counts), format_percent(figures["score"]), f"{low} to {high}"]
        rows.append([str(cell) for cell in (*row, f"{result.wall_s / 60:.0f}")])
    left_out = sum((Counter(result.left_out) for result in results), Counter())
    lines = ["# Faults that the tests would notice", "", *build_table(rows), ""]
    lines += [f"Score: killed and timeouts among those sampled (seed {seed}). Left out:", ""]
    lines += [f"- {number} times: {reason}" for reason, number in left_out.most_common()]
    for result in results:
        lines += ["", f"## {result.room}: not noticed"]
        for mutant in result.unnoticed:
            lines += ["", f"`{mutant.file}:{mutant.line}` {result.statuses[mutant.name]}", ""]
            lines += ["```diff", mutant.diff, "```"]
    return "\n".join(lines) + "\n"
