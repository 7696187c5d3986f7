"""A root folder that stands for an image: what a Dockerfile does is done in it, by chroot.

It differs from an image by Docker in the base, which is Debian's python3.11 in place of the image's, and in that there
are no layers. Needs Linux, root and debootstrap.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.docker_check.image_files import Stage, list_context, read_command, read_pairs, replace_variables

# What the base image has and Debian's does not, under Debian's names; the image has no venv package, but the module.
PACKAGES = ("ca-certificates", "python3", "python3-pip", "python3-venv")
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
SUITE = "bookworm"  # its python3 is 3.11
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class CleanRoot:
    """A root folder, and the settings of the image that it stands for.

    Attributes:
        folder: the root.
        binds: files and folders of this machine that builds see, read-only and under the same path.
        carried: variables of this machine that builds see.
        workdir: the working directory.
        user: number of the user.
        environment: variables of the image.
        entrypoint: the command's first words.
        command: its default arguments.
        healthcheck: the command of HEALTHCHECK.
        seconds: time of each RUN, by its words.
    """

    folder: Path
    binds: Sequence[Path] = ()
    carried: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: int = 0
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def create(self) -> None:
        """Install the base, or copy that of an earlier root beside this one, in place of what is in the folder."""
        base, unfinished = (self.folder.parent / name for name in ("base", "base.unfinished"))
        if not base.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            words = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(unfinished)]
            run_apart([], words)  # it mounts /proc there
            (unfinished / "usr/local/bin/python").symlink_to("/usr/bin/python3")
            for mark in unfinished.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
                mark.unlink()  # the image's Python is not managed by apt
            (unfinished / "etc/hosts").write_text(HOSTS, encoding="utf-8")  # Docker gives a container its own
            unfinished.rename(base)
        if self.folder.exists():
            shutil.rmtree(self.folder)
        subprocess.run(["cp", "-aT", "--reflink=auto", base, self.folder], check=True)

    def build(
        self, stages: Sequence[Stage], root: Path, given: Mapping[str, str], *, is_planned: bool = False
    ) -> None:
        """Do what the stages say.

        Args:
            stages: of one image, the first one first.
            root: of the repository.
            given: build arguments.
            is_planned: only read the settings; RUN and COPY were done before.
        """
        files = list_context(root)
        for stage in stages:
            arguments: dict[str, str] = {}
            for step in stage.instructions:
                values = {**arguments, **self.environment}
                if step.name == "ARG":
                    name, has_default, _ = step.words.partition("=")
                    value = given.get(name, read_pairs(step.words)[name])
                    arguments |= {name: value} if has_default or name in given else {}
                elif step.name == "ENV":
                    pairs = read_pairs(step.words).items()
                    self.environment |= {name: replace_variables(value, values) for name, value in pairs}
                elif step.name == "RUN" and not is_planned:
                    start = time.monotonic()
                    self.run(step.words, arguments)
                    self.seconds[step.words] = time.monotonic() - start
                elif step.name == "COPY" and not is_planned:
                    self.copy(root, files, shlex.split(step.words))
                elif step.name not in ("RUN", "COPY"):
                    self._set(step.name, step.words)

    def _set(self, name: str, words: str) -> None:
        if name == "WORKDIR":
            self.workdir = words
            self.inside(words).mkdir(parents=True, exist_ok=True)
        elif name == "USER":
            self.user = int(words)
        elif name == "ENTRYPOINT":
            self.entrypoint, self.command = read_command(words), []
        elif name == "CMD":
            self.command = read_command(words)
        elif name == "HEALTHCHECK":
            self.healthcheck = read_command(words.partition("CMD ")[2].strip())
        elif name != "EXPOSE":
            raise NotImplementedError(name)

    def inside(self, path: str) -> Path:
        """Return where a path of the image is; a relative one is in the working directory."""
        return self.folder / os.path.join(self.workdir, path).lstrip("/")

    def copy(self, root: Path, files: Sequence[Path], words: Sequence[str]) -> None:
        """Copy files and the contents of folders, as COPY does.

        Raises:
            FileNotFoundError: when the builder is not sent such a file.
        """
        *sources, target = words
        for source in map(Path, sources):
            chosen = [file for file in files if file == source or source in file.parents]
            if not chosen:
                raise FileNotFoundError(f"COPY {source}")
            for file in chosen:
                in_folder = target.endswith(("/", ".")) and file == source
                place = self.inside(target) / file.relative_to(source)
                place = self.inside(target) / file.name if in_folder else place
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / file, place)

    def find_user(self) -> tuple[int, str]:
        """Return the group and the home of the user, as its passwd has them."""
        lines = (self.folder / "etc/passwd").read_text(encoding="utf-8").splitlines()
        fields = (line.split(":") for line in lines)
        return next((int(entry[3]), entry[5]) for entry in fields if int(entry[2]) == self.user)

    def enter(self, words: Sequence[str], variables: Mapping[str, str], *, is_confined: bool = False) -> list[str]:
        """Return a command that runs another one inside, as the image's user and in its working directory.

        Args:
            words: the command.
            variables: of its environment.
            is_confined: without any capability, and unable to gain one.
        """
        group, home = self.find_user()
        settings = [f"{name}={value}" for name, value in {"HOME": home, **variables}.items()]
        confined = ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"] if is_confined else []
        identity = ["setpriv", f"--reuid={self.user}", f"--regid={group}", "--clear-groups", *confined]
        inside = ["sh", "-c", f'cd {shlex.quote(self.workdir)} && exec "$@"', "sh", *words]
        return ["chroot", str(self.folder), *identity, "env", "-i", *settings, *inside]

    def run(self, words: str, arguments: Mapping[str, str]) -> None:
        """Run the words of a RUN.

        Raises:
            CalledProcessError: when they fail.
        """
        variables = {**self.carried, **arguments, **self.environment}
        mounts = [mount_binding(path, self.folder, options="ro,") for path in self.binds]
        run_apart([*mounts, *mount_system(self.folder)], self.enter(read_command(words), variables))


def mount_binding(source: Path, root: Path, target: str | None = None, options: str = "") -> str:
    """Return shell words that let a root see a file or folder.

    Args:
        source: on this machine.
        root: the folder.
        target: where the root sees it; None: under the same path.
        options: of the mount, such as `ro,`.
    """
    place = root / (target or str(source)).lstrip("/")
    made = f"mkdir -p {shlex.quote(str(place if source.is_dir() else place.parent))}"
    touched = "" if source.is_dir() else f" && touch {shlex.quote(str(place))}"
    names = f"{shlex.quote(str(source))} {shlex.quote(str(place))}"
    return f"{made}{touched} && mount --bind {names} && mount -o remount,{options}bind {names}"


def mount_system(root: Path) -> list[str]:
    """Return shell words that give a root its /proc and /dev."""
    place = shlex.quote(str(root))
    return [f"mount -t proc proc {place}/proc", f"mount --rbind /dev {place}/dev"]


def run_apart(mounts: Sequence[str], command: Sequence[str]) -> None:
    """Run a command with mounts that nothing else sees, and with processes that end with it.

    Raises:
        CalledProcessError: when it fails.
    """
    subprocess.run(write_apart(mounts, command), check=True)


def write_apart(mounts: Sequence[str], command: Sequence[str], *, has_network: bool = True) -> list[str]:
    """Return the command of `run_apart`; without a network it has a loopback interface of its own."""
    lines = ["mount --make-rprivate /", *mounts]
    if not has_network:
        lines.append("ip link set lo up")
    network = [] if has_network else ["--net"]
    script = " && ".join([*lines, 'exec "$@"'])
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", *network, "sh", "-c", script, "sh", *command]
