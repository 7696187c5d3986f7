"""Builds the image of a compose file in a clean Debian root, starts its services there, and asks them.

This is not Docker: it runs the RUN, COPY and ENV lines of the Dockerfile by chroot, and the services with what Linux
has of the compose file's limits: a read-only root, tmpfs, volumes, no capabilities, no network but loopback. Memory is
measured, not limited. Needs root and debootstrap; downloads what the image downloads.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.cli import run_script
from sentifactory.errors import ConfigError
from sentifactory.system.atomic import write_json
from sentifactory.system.fingerprint import compute_fingerprint, hash_file
from sentifactory.system.hardware import MemoryWatch
from sentifactory.system.progress import say
from tools.docker_check.clean_root import CleanRoot, mount_binding, mount_system, write_apart
from tools.docker_check.image_files import Stage, find_stages, list_context, read_compose, read_dockerfile

READY_S = 600.0
ASK = (
    "import json,os,urllib.request as r;k=os.environ.get('SENTIFACTORY_SERVE_KEY','');"
    "q=r.Request('http://127.0.0.1:8000/predict',json.dumps({'text':'房间干净'}).encode(),"
    "{'Content-Type':'application/json','Authorization':f'Bearer {k}'});print(r.urlopen(q,timeout=60).read().decode())"
)
SHOW = "import urllib.request as r;print(r.urlopen('http://127.0.0.1:7860',timeout=60).read().decode()[:200])"
QUESTIONS = {8000: ASK, 7860: SHOW}


def check_images(
    folder: Annotated[Path, typer.Option("--folder", help="Folder for the root; 12 GB.")],
    compose: Annotated[Path, typer.Option("--compose", help="The compose file.")] = Path("compose.yaml"),
    service: Annotated[
        list[str] | None, typer.Option("--service", help="Start this one only; may be repeated.  [all]")
    ] = None,
    bind: Annotated[
        list[Path] | None,
        typer.Option("--bind", help="File or folder of this machine that the build sees, such as /etc/resolv.conf."),
    ] = None,
    carry: Annotated[
        list[str] | None, typer.Option("--carry", help="Environment variable that the build sees, such as PIP_CERT.")
    ] = None,
    inside: Annotated[
        str, typer.Option("--inside", help="Command to run beside each service, as docker compose exec does.")
    ] = "",
    output_file: Annotated[Path, typer.Option("--output_file", help="Figures.")] = Path("saves/bench/docker.json"),
) -> None:
    """Build the image of a compose file without Docker, start its services, and ask each of them."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise ConfigError(
            "This needs root and debootstrap", next_step="apt-get install debootstrap, and run it as root"
        )
    root = Path.cwd()
    services = read_compose(compose, os.environ)["services"]
    chosen = {name: each for name, each in services.items() if not service or name in service}
    carried = {name: os.environ[name] for name in carry or () if name in os.environ}
    figures: dict[str, Any] = {}
    for name, each in chosen.items():
        image = CleanRoot(folder / each["image"].replace(":", "-"), tuple(bind or ()), carried)
        figures[each["image"]] = figures.get(each["image"]) or build_image(image, each["build"], root, compose)
        planned = CleanRoot(image.folder)
        build_image(planned, each["build"], root, compose, is_planned=True)
        with tempfile.TemporaryDirectory(prefix="volumes-", dir=folder) as volumes:
            figures[name] = run_service(planned, name, each, Path(volumes), shlex.split(inside))
        write_json(output_file, figures)
    say(f"{output_file}")


def build_image(
    image: CleanRoot, build: dict[str, Any], root: Path, compose: Path, *, is_planned: bool = False
) -> dict[str, Any]:
    """Build an image unless it is there as its sources are now, and return its size and times.

    Args:
        image: where to build, and what to set.
        build: of a service.
        root: of the repository.
        compose: the file of the service.
        is_planned: only read the settings.
    """
    context = compose.parent / build["context"]
    before, stages = read_dockerfile(context / build["dockerfile"])
    chosen, arguments = find_stages(stages, build.get("target")), {**before, **build.get("args", {})}
    done = image.folder.with_suffix(".built")
    sources = identify_sources(chosen, arguments, root)
    is_planned = is_planned or (done.exists() and done.read_text(encoding="utf-8") == sources)
    if not is_planned:
        done.unlink(missing_ok=True)
        say(f"the base of {image.folder.name}")
        image.create()
    image.build(chosen, root, arguments, is_planned=is_planned)
    if not is_planned:
        done.write_text(sources, encoding="utf-8")
    size = subprocess.run(["du", "-sx", "--block-size=1", image.folder], capture_output=True, text=True, check=True)
    seconds = {words[:80]: round(value, 1) for words, value in image.seconds.items()}
    return {"bytes": int(size.stdout.split()[0]), "run_s": seconds}


def identify_sources(stages: list[Stage], arguments: dict[str, str], root: Path) -> str:
    """Return a hash of all that an image is built from: its stages, their arguments, and the files that are sent."""
    files = {str(file): hash_file(root / file) for file in list_context(root)}
    return compute_fingerprint([dataclasses.asdict(stage) for stage in stages], arguments, files)


def run_service(
    image: CleanRoot, name: str, service: dict[str, Any], volumes: Path, beside: list[str]
) -> dict[str, Any]:
    """Start a service as its compose file says, ask it when it is healthy, stop it, and return the figures.

    Args:
        image: built.
        name: of the service.
        service: as in the compose file.
        volumes: folder for its volumes and its log.
        beside: a command to run in it before it is stopped, or nothing.

    Raises:
        ConfigError: when it does not become healthy, or does not stop in time.
    """
    image.environment |= service["environment"]
    words = [*image.entrypoint, *service.get("command", image.command)]
    check = service.get("healthcheck", {}).get("test", ["CMD", *image.healthcheck])[1:]
    port = int(service["ports"][0].split(":")[-1])
    mounts = mount_service(image, service, volumes)
    log = volumes / f"{name}.log"
    start = time.monotonic()
    with MemoryWatch(os.getpid()) as memory, log.open("w", encoding="utf-8") as stream:
        inside = image.enter(words, image.environment, is_confined=True)
        command = write_apart(mounts, inside, has_network=False)
        with subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True) as process:
            try:
                first = find_first(process)
                ask = ["nsenter", f"--target={first}", "--mount", "--net", "--pid"]
                while (status := ask_inside(image, ask, check)).returncode != 0:
                    if process.poll() is not None or time.monotonic() - start > READY_S:
                        raise ConfigError(f"{name} is not healthy: {status.stderr[-300:]}", next_step="read its log")
                    time.sleep(1)
                ready_s = time.monotonic() - start
                answer = ask_inside(image, ask, ["python", "-c", QUESTIONS[port]])
                done = ask_inside(image, ask, beside) if beside else None
                stopped = time.monotonic()
                os.kill(first, signal.SIGTERM)
                process.wait(60)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                say(log.read_text(encoding="utf-8"))
    say(f"{name}: {answer.stdout}{answer.stderr[-1000:]}")
    if done is not None:
        say(f"{' '.join(beside)}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return {
        "ready_s": round(ready_s, 1),
        "stop_s": round(time.monotonic() - stopped, 1),
        "exit_code": process.returncode,
        "peak_bytes": memory.peak_bytes,
        "answer": answer.stdout,
    }


def mount_service(image: CleanRoot, service: dict[str, Any], volumes: Path) -> list[str]:
    """Return the mounts of a service: a read-only root, what is in memory, and volumes that begin as in the image."""
    root = image.folder
    mounts = [f"mount --bind {root} {root}"]
    for place in service.get("tmpfs", ()):
        path, _, options = place.partition(":")
        found = re.search(r"uid=\d+", options)
        mounts.append(f"mount -t tmpfs -o {found[0] if found else 'mode=1777'} tmpfs {root}{path}")
    for volume in service.get("volumes", ()):
        source, target, *options = volume.split(":")
        if not (volumes / source).exists():
            subprocess.run(["cp", "-a", image.inside(target), volumes / source], check=True)
        mounts.append(mount_binding(volumes / source, root, target, "".join(f"{each}," for each in options)))
    # Last, because Docker, too, makes the folders that volumes are mounted on.
    return [*mounts, *mount_system(root), f"mount -o remount,ro,bind {root} {root}"]


def find_first(process: subprocess.Popen[bytes]) -> int:
    """Return the first process inside, which `unshare` starts, once it has become the service.

    Raises:
        ConfigError: when it ends before that.
    """
    while process.poll() is None:
        with suppress(OSError):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
            if children and os.readlink(f"/proc/{children[0]}/root") != "/":
                return int(children[0])
        time.sleep(0.1)
    raise ConfigError("The mounts of a service failed", next_step="read the output above")


def ask_inside(image: CleanRoot, enter: list[str], words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command beside a running service, as its health check does."""
    inside = image.enter(words, image.environment, is_confined=True)
    return subprocess.run([*enter, *inside], capture_output=True, encoding="utf-8", check=False)


if __name__ == "__main__":
    run_script(check_images)
