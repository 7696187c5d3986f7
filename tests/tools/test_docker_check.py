"""How Dockerfiles and compose files are read where there is no Docker, and what a clean root makes of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.docker_check.clean_root import PATH, CleanRoot, mount_binding, write_apart
from tools.docker_check.docker_check import build_image, mount_service
from tools.docker_check.image_files import (
    VariableError,
    find_stages,
    list_context,
    read_compose,
    read_dockerfile,
    replace_variables,
)

DOCKERFILE = """
# a comment
ARG BASE=python:3
FROM ${BASE} AS first
WORKDIR /app
COPY one.txt two.txt ./
COPY src src
ARG KIND=small
ARG INDEX
RUN echo a \\
    # a comment in between
    && echo b
USER 10001
ENV PATH="/app/bin:${PATH}" \\
    KIND=${KIND}
HEALTHCHECK --interval=1s CMD ["true", "a b"]
ENTRYPOINT ["program"]
CMD ["first"]
FROM first AS second
COPY src/deep /place/
CMD second
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    for name in ("one.txt", "two.txt", "src/a.py", "src/deep/b.py", "src/cache/c.pyc", "secret.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "Dockerfile").write_text(DOCKERFILE)
    (root / ".dockerignore").write_text("*\n!one.txt\n!two.txt\n!src\n**/*.pyc\n")
    subprocess.run(["git", "init", "--quiet", root], check=True)
    return root


def test_a_stage_continues_the_one_before_it(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(CleanRoot, "run", lambda _, words, arguments: ran.append((" ".join(words.split()), arguments)))
    before, stages = read_dockerfile(repository / "Dockerfile")
    assert before == {"BASE": "python:3"}
    image = CleanRoot(tmp_path / "image")
    image.build(find_stages(stages, None), repository, {"KIND": "large", "OTHER": "ignored"})
    assert ran == [("echo a && echo b", {"KIND": "large"})]
    assert image.environment == {"PATH": f"/app/bin:{PATH}", "KIND": "large"}
    assert (image.user, image.workdir, image.healthcheck) == (10001, "/app", ["true", "a b"])
    assert (image.entrypoint, image.command) == (["program"], ["/bin/sh", "-c", "second"])
    files = sorted(str(path.relative_to(image.folder)) for path in image.folder.rglob("*") if path.is_file())
    assert files == ["app/one.txt", "app/src/a.py", "app/src/deep/b.py", "app/two.txt", "place/b.py"]
    first = CleanRoot(tmp_path / "first")
    first.build(find_stages(stages, "first"), repository, {}, is_planned=True)
    assert (first.command, first.environment["KIND"]) == (["first"], "small")
    assert [path.name for path in first.folder.iterdir()] == ["app"]


def test_an_argument_without_a_value_is_not_set(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[dict[str, str]] = []
    monkeypatch.setattr(CleanRoot, "run", lambda _, words, arguments: ran.append(dict(arguments)))
    _, stages = read_dockerfile(repository / "Dockerfile")
    for name, given in (("without", {}), ("with", {"INDEX": "http://index"})):
        CleanRoot(tmp_path / name).build(find_stages(stages, None), repository, given)
    assert ran == [{"KIND": "small"}, {"KIND": "small", "INDEX": "http://index"}]


def test_an_image_is_built_anew_once_its_sources_change(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, built = tmp_path / "roots" / "base", []
    (base / "etc").mkdir(parents=True)
    monkeypatch.setattr(CleanRoot, "run", lambda image, *_: built.append(sorted(image.folder.rglob("left"))))
    monkeypatch.chdir(repository)
    compose, image = repository / "compose.yaml", tmp_path / "roots" / "image"
    build = {"context": ".", "dockerfile": "Dockerfile"}

    def rebuild(**arguments: str) -> int:
        built.clear()
        build_image(CleanRoot(image), {**build, "args": arguments}, repository, compose)
        (image / "left").touch()
        return len(built)

    assert [rebuild(), rebuild()] == [1, 0]
    (repository / "src" / "a.py").write_text("changed")
    assert [rebuild(), rebuild()] == [1, 0]
    assert built == []
    assert (image / "app" / "src" / "a.py").read_text() == "changed"
    (repository / "secret.txt").write_text("not sent")
    assert rebuild() == 0
    assert [rebuild(KIND="large"), rebuild(KIND="large")] == [1, 0]
    (repository / "Dockerfile").write_text(DOCKERFILE.replace("echo b", "echo c"))
    assert rebuild(KIND="large") == 1
    assert built == [[]]  # nothing of the former root was left
    (image / "left").unlink()
    monkeypatch.setattr(CleanRoot, "run", fail)
    (repository / "one.txt").write_text("changed")
    with pytest.raises(OSError, match="failed"):
        rebuild()
    monkeypatch.setattr(CleanRoot, "run", lambda *_: built.append([]))
    assert rebuild() == 1  # what failed is not taken for built


def fail(*_: object) -> None:
    raise OSError("failed")


def test_only_what_is_sent_can_be_copied(repository: Path, tmp_path: Path) -> None:
    sent = list_context(repository)
    assert {str(file) for file in sent} == {"one.txt", "two.txt", "src/a.py", "src/deep/b.py"}
    with pytest.raises(FileNotFoundError, match=r"secret\.txt"):
        CleanRoot(tmp_path / "image").copy(repository, sent, ["secret.txt", "./"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A ${A}", "a a"),
        ("${EMPTY:-b}|${EMPTY-b}|${NONE-b}", "b||b"),
        ("${A:+c}|${EMPTY:+c}|${EMPTY+c}", "c||c"),
        ("${A:?must be set}", "a"),
    ],
)
def test_variables(text: str, expected: str) -> None:
    assert replace_variables(text, {"A": "a", "EMPTY": ""}) == expected


def test_a_variable_that_must_be_set() -> None:
    with pytest.raises(VariableError, match="A: set it"):
        replace_variables("${A:?set it}", {"A": ""})


def test_what_a_service_is_given(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(
        'services:\n  a:\n    command: [run, "${MODEL:-mine}"]\n    environment: {GIVEN: , MISSING: , FIXED: 1}\n'
    )
    service = read_compose(file, {"GIVEN": "g"})["services"]["a"]
    assert service == {"command": ["run", "mine"], "environment": {"GIVEN": "g", "FIXED": "1"}}


def test_a_service_has_the_users_rights_and_the_mounts_of_its_file(tmp_path: Path) -> None:
    image = CleanRoot(tmp_path / "image", workdir="/app", user=10001)
    (image.folder / "etc").mkdir(parents=True)
    (image.folder / "etc/passwd").write_text("root:x:0:0::/root:\nme:x:10001:10002::/home/me:/bin/sh\n")
    (image.folder / "app/saves").mkdir(parents=True)
    (image.folder / "app/saves/model").write_text("of the image")
    words = image.enter(["program", "a b"], {"KEY": "k"}, is_confined=True)
    assert {"--reuid=10001", "--regid=10002", "--bounding-set=-all", "--no-new-privs", "HOME=/home/me", "KEY=k"} < set(
        words
    )
    assert words[-2:] == ["program", "a b"]
    volumes = tmp_path / "volumes"
    volumes.mkdir()
    service = {"tmpfs": ["/tmp:exec", "/home/me:exec,uid=10001"], "volumes": ["saves:/app/saves:ro"]}
    mounts = "\n".join(mount_service(image, service, volumes))
    assert (volumes / "saves/model").read_text() == "of the image"  # as Docker fills a new volume
    assert f"remount,ro,bind {image.folder} " in mounts
    assert f"uid=10001 tmpfs {image.folder}/home/me" in mounts
    assert mount_binding(volumes / "saves", image.folder, "/app/saves", "ro,") in mounts
    assert "--net" in write_apart([], ["true"], has_network=False)
    assert "--net" not in write_apart([], ["true"])
