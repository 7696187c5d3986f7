"""What the notebook asks of its machine: an environment, a plan that suits the GPU, and a way out for its files.

Standard library only: the kernel of Colab, Kaggle or a plain Jupyter has none of our dependencies. They go into an
environment of their own, and the notebook runs our commands there.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sentifactory.errors import SentiFactoryError
from sentifactory.system.environments import wants_modelscope
from sentifactory.system.hardware import has_nvidia_gpu, read_wished_device
from sentifactory.system.process import interrupt_with_parent

COLAB, KAGGLE, JUPYTER = "colab", "kaggle", "jupyter"
HUB = "https://huggingface.co"
MODELSCOPE = "www.modelscope.cn"
QWEN = "Qwen/Qwen2.5-Coder-1.5B-Instruct"
GEMMA = "saves/pretrained/gemma-3-270m"
RECIPES = "examples/train_freeze"
NATIVE_BF16 = 8.0  # compute capability; older GPUs emulate bf16
A100_GIB = 70.0
FRAME_PIXELS = 900
# What a model's folder holds beyond checkpoints and the trainer's state.
PACKED = (".safetensors", ".json", ".jinja", ".txt", ".model", ".md", ".png", ".html")

# A GPU is one that torch can compute on: not one whose driver or architecture is older than torch's CUDA.
_LIST_GPUS = """
import json, sys
def explain(error):
    print(type(error).__name__, str(error).partition("\\n")[0], sep=": ", file=sys.stderr)
sys.excepthook = lambda kind, error, trace: explain(error)
import torch
found = []
for place in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
    try:
        torch.ones(2, device=f"cuda:{place}").sum().item()
    except RuntimeError as error:
        explain(error)
        continue
    facts = torch.cuda.get_device_properties(place)
    found.append([facts.name, facts.major + facts.minor / 10, facts.total_memory / 2**30])
if not found:
    torch.cuda.init()  # its error says what is wrong with the driver
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that torch can use.

    Attributes:
        name: such as `Tesla T4`.
        capability: compute capability, such as 7.5.
        memory_gib: its memory.
    """

    name: str
    capability: float
    memory_gib: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What the notebook trains.

    Attributes:
        name: of the run: `qwen` or `gemma`.
        base: the pretrained model.
        recipe: the training YAML.
        changes: settings that replace those of the recipe.
        processes: that train together.
        summary: one line in both languages.
    """

    name: str
    base: str
    recipe: str
    changes: tuple[str, ...]
    processes: int
    summary: str

    @property
    def is_embedded(self) -> bool:
        """Whether the model comes from the package registry, not from a hub."""
        return self.base == GEMMA


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs `sentifactory` commands in the repository, and shows their output while it appears.

    Attributes:
        root: of the repository.
        python: interpreter of the training environment.
    """

    root: Path
    python: Path

    def __call__(self, *words: object, **variables: str) -> None:
        """Run a command.

        Args:
            words: of the command, without `sentifactory`.
            variables: of its environment, beside those of this process.

        Raises:
            SentiFactoryError: when it fails; its own message is above, in the cell's output.
        """
        print("$ sentifactory", *words, flush=True)
        run_streamed([self.python, "-m", "sentifactory.cli", *map(str, words)], self.root, variables)


def find_host(environment: Mapping[str, str] = os.environ) -> str:
    """Return where the notebook runs: `kaggle`, `colab` or `jupyter`.

    Kaggle's image is made from Colab's, so its own variable decides.
    """
    if "KAGGLE_KERNEL_RUN_TYPE" in environment:
        return KAGGLE
    return COLAB if "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in environment else JUPYTER


def set_up(root: Path) -> Runner:
    """Return a runner of our commands; creates the training environment unless this kernel runs in it.

    Raises:
        SentiFactoryError: when the set-up fails.
    """
    if Path(sys.prefix).resolve() == (root / ".venv").resolve():
        return Runner(root, Path(sys.executable))
    # Without vLLM: its CUDA build takes longer to install than the notebook asks models.
    run_streamed([sys.executable, "-m", "sentifactory.system.environments", "train"], root)
    return Runner(root, root / ".venv" / "bin" / "python")


def run_streamed(command: Sequence[str | Path], folder: Path, variables: Mapping[str, str] | None = None) -> None:
    """Run a command and print its output line by line, which a child of a kernel cannot do by itself everywhere.

    Interrupting the cell interrupts the command, and what it prints while it saves its progress is shown as well.

    Args:
        command: the program and its arguments.
        folder: the repository.
        variables: of its environment, beside those of this process.

    Raises:
        SentiFactoryError: when it fails.
        KeyboardInterrupt: when the cell was interrupted and the command has ended.
    """
    search = os.pathsep.join(filter(None, [str(folder / "src"), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": search, "PYTHONUNBUFFERED": "1", **(variables or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        # Whether an interrupt reaches the kernel alone or its whole group depends on the host. In a group of its own
        # the command gets each one once, from us.
        process_group=0,
        preexec_fn=interrupt_with_parent,
    ) as process:
        interrupts = 0
        while not _show_output(process):
            interrupts += 1
    if interrupts:
        raise KeyboardInterrupt
    if process.returncode:
        raise SentiFactoryError(
            f"Exit code {process.returncode} · 退出码 {process.returncode}",
            next_step="read the output above, correct what it names, and run this cell again · "
            "请按上面的输出修正，然后再运行这个单元格",
        )


def _show_output(process: subprocess.Popen[str]) -> bool:
    """Print a command's output until it ends; at an interrupt, pass it on to the command's group and return False."""
    try:
        for line in process.stdout or ():
            print(line, end="", flush=True)
    except KeyboardInterrupt:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended meanwhile
            os.killpg(process.pid, signal.SIGINT)
        return False
    return True


def list_gpus(python: Path) -> list[Gpu]:
    """Return the GPUs that torch can use in an environment.

    Where there are some, and it can use none, says why and sets SENTIFACTORY_DEVICE: torch itself may take such a GPU.
    """
    if read_wished_device() == "cpu":
        return []
    answer = subprocess.run([python, "-c", _LIST_GPUS], capture_output=True, encoding="utf-8", check=False)
    lines = answer.stdout.splitlines()
    found = [Gpu(*facts) for facts in json.loads(lines[-1])] if answer.returncode == 0 and lines else []
    if not found and has_nvidia_gpu():
        os.environ["SENTIFACTORY_DEVICE"] = "cpu"
        reason = (answer.stderr.strip() or f"exit code {answer.returncode}").splitlines()[-1]
        print(
            f"PyTorch cannot use this GPU: {reason}\n"
            "The CPU is used for now. PyTorch needs a driver for CUDA 13, and a T4 or newer, with free memory. To use "
            "the GPU, correct this, restart the kernel and run all cells again.\n"
            "PyTorch 无法使用这块 GPU，原因见上；目前使用 CPU。PyTorch 需要支持 CUDA 13 的驱动、T4 或更新的显卡，"
            "以及空闲的显存。要使用 GPU，请先解决该问题，再重启内核并运行全部单元格。"
        )
    return found


def reaches_hub() -> bool:
    """Return whether the model hub answers within five seconds: ModelScope if it is chosen, or HF_ENDPOINT."""
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", ""):
        return False
    if wants_modelscope():
        address = f"https://{os.environ.get('MODELSCOPE_DOMAIN') or MODELSCOPE}"
    else:
        address = os.environ.get("HF_ENDPOINT") or HUB
    try:
        urllib.request.urlopen(address, timeout=5).close()  # noqa: S310
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def plan_training(gpus: Sequence[Gpu], *, has_hub: bool) -> Plan:
    """Return the model and the recipe for a machine.

    Two GPUs train together; more than two would need another batch, so that the others stay idle.

    Example:
        >>> plan_training([Gpu("Tesla T4", 7.5, 14.7)], has_hub=True).recipe
        'examples/train_freeze/qwen2_5_coder_1_5b_freeze_t4.yaml'
    """
    if not gpus or not has_hub:
        where = f"{gpus[0].name} · 没有模型仓库 (no model hub)" if gpus else "CPU"
        on_gpu = ("use_cpu=false",) if gpus else ()
        return Plan("gemma", GEMMA, f"{RECIPES}/gemma3_270m_freeze_demo.yaml", on_gpu, 1, f"gemma-3-270m · {where}")
    has_bf16 = all(gpu.capability >= NATIVE_BF16 for gpu in gpus)
    precision = "bf16" if has_bf16 else "fp16"
    if len(gpus) > 1:
        changes = ("fp16=false", "bf16=true") if has_bf16 else ()
        recipe = "examples/distributed/qwen2_5_coder_1_5b_freeze_2gpu.yaml"
        return Plan("qwen", QWEN, recipe, changes, 2, f"{QWEN} · 2 x {gpus[0].name}, {precision}")
    size = "t4" if not has_bf16 else "a100" if gpus[0].memory_gib >= A100_GIB else "3k"
    recipe = f"{RECIPES}/qwen2_5_coder_1_5b_freeze_{size}.yaml"
    return Plan("qwen", QWEN, recipe, (), 1, f"{QWEN} · {gpus[0].name}, {precision}")


def show_report(report: Path) -> None:
    """Show an HTML report in the notebook, in a frame of its own."""
    from IPython.display import HTML, display

    page = html.escape(report.read_text(encoding="utf-8"), quote=True)
    display(HTML(f'<iframe srcdoc="{page}" width="100%" height="{FRAME_PIXELS}" frameborder="0"></iframe>'))


def pack_results(model: Path, report: Path, archive: Path) -> None:
    """Write a tuned model and its report into a zip file.

    Args:
        model: its folder; checkpoints and the trainer's state are left out.
        report: report.json; the files of the same name with other endings are packed as well.
        archive: the zip file.
    """
    files = {f"model/{path.name}": path for path in sorted(model.iterdir()) if _is_packed(path)}
    files |= {path.name: path for path in sorted(report.parent.glob(f"{report.stem}.*")) if _is_packed(path)}
    unfinished = archive.with_name(f".{archive.name}.part")
    with zipfile.ZipFile(unfinished, "w") as out:
        for name, path in files.items():  # stored, not compressed: weights do not get smaller
            out.write(path, name)
    unfinished.replace(archive)
    print(f"{archive}: {len(files)} files, {archive.stat().st_size / 1e9:.2f} GB")


def _is_packed(path: Path) -> bool:
    return path.is_file() and path.suffix in PACKED and not path.name.startswith((".", "trainer_"))


def offer_download(archive: Path, host: str) -> None:
    """Download a file on Colab; elsewhere show a link to it."""
    if host == COLAB:
        from google.colab import files

        files.download(str(archive))
        return
    from IPython.display import FileLink, display

    display(FileLink(os.path.relpath(archive)))
