"""Trains on a Ray cluster, where LLaMA-Factory places one process on each GPU (`USE_RAY=1`, `ray_num_workers`).

Placement, addresses and the end of the processes are LLaMA-Factory's; each process runs our training instead of its
own. Ray shows what the main one writes. Not covered: saving a checkpoint on Ctrl-C, which ends the processes at once;
the same command continues from the last one.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError, SentiFactoryError
from sentifactory.system.progress import say
from sentifactory.training.recipe.recipe import Recipe
from sentifactory.training.run.run_card import read_card
from sentifactory.training.run.trainer_output import divert_stdout

_MOST_CORES = 10  # that LLaMA-Factory asks for, for each process
_REPLACED = ("Worker", "get_placement_group", "get_ray_head_node_ip", "get_ray_remote_config_for_worker")


def train_on_ray(recipe: Recipe, overrides: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Train a recipe in the processes of a Ray cluster, and return the run card.

    Args:
        recipe: with `ray_num_workers` and `ray_init_kwargs`.
        overrides: `key=value` settings that override the file.
        options: of `train_recipe`.

    Raises:
        ConfigError: when Ray is missing, has too few devices, or has no cluster.
        SentiFactoryError: that a process raised.
    """
    from llamafactory.extras.packages import is_ray_available
    from llamafactory.hparams import get_ray_args
    from llamafactory.train import tuner

    if not is_ray_available():
        raise ConfigError("USE_RAY is set, and the package ray is missing", next_step="pip install ray, or unset it")
    ray_arguments = get_ray_args(copy.deepcopy(recipe.settings))
    job = {
        "folder": str(Path.cwd()),
        "recipe": str(recipe.path),
        "overrides": list(overrides),
        "options": dict(options),
    }
    say(f"Training in {ray_arguments.ray_num_workers} processes of a Ray cluster.")
    stock = {name: getattr(tuner, name) for name in _REPLACED}
    workers = int(ray_arguments.ray_num_workers)
    cores: list[int] = []  # that each process gets; known when Ray has the cluster

    def place_workers(_: int) -> tuple[Any, dict[str, int]]:
        # LLaMA-Factory asks for a place on every device of the cluster, also for those that it does not use.
        device = tuner.get_device_name().upper()
        cores.append(choose_cores([node["Resources"] for node in tuner.ray.nodes() if node["Alive"]], workers, device))
        bundle = {"CPU": cores[-1], **({} if device == "CPU" else {device: 1})}
        return tuner.ray.util.placement_group([bundle] * workers, strategy="PACK"), bundle

    def describe_worker(**details: Any) -> dict[str, Any]:
        return {**stock["get_ray_remote_config_for_worker"](**details), "num_cpus": cores[-1]}

    tuner.Worker = _build_worker(tuner.Worker)
    tuner.get_ray_head_node_ip = _find_head_address  # theirs asks Ray's dashboard, which few have installed
    tuner.get_placement_group, tuner.get_ray_remote_config_for_worker = place_workers, describe_worker
    try:
        with divert_stdout(sys.stderr):
            tuner._ray_training_function(ray_arguments, config=job)
    except ValueError as error:
        raise ConfigError(str(error).rstrip("."), where="ray_num_workers", next_step="lower it") from error
    except Exception as error:
        if isinstance(error, ConnectionError) and not tuner.ray.is_initialized():
            raise ConfigError(
                "There is no Ray cluster to join",
                where="ray_init_kwargs",
                expected="a running cluster, or address: local for this machine alone",
                next_step="run `ray start --head`, and `ray start --address=<first machine>:6379` on the others",
                code="ray-cluster",
            ) from error
        if isinstance(cause := getattr(error, "cause", None), SentiFactoryError):
            raise cause from error
        raise
    finally:
        for name, value in stock.items():
            setattr(tuner, name, value)
        tuner.ray.shutdown()
    folder = Path(str(recipe.settings["output_dir"])).expanduser()
    if (card := read_card(folder)) is None:
        raise ConfigError("The run has ended, and its output is not on this machine", where=str(folder))
    return card


def choose_cores(machines: Sequence[Mapping[str, float]], workers: int, device: str) -> int:
    """Return how many cores each process gets: LLaMA-Factory's ten, or as many as the cluster has for each.

    Ray waits without end for what no machine of the cluster has.

    Args:
        machines: the resources of each.
        workers: number of processes.
        device: Ray's name of the kind of device that each process gets one of; "CPU" for none.

    Raises:
        ConfigError: when there is no core for each process on the machines of the devices.

    Example:
        >>> choose_cores([{"CPU": 8.0}, {"CPU": 4.0}], 3, "CPU")
        4
    """

    def count_places(machine: Mapping[str, float], cores: int) -> int:
        places = int(machine.get("CPU", 0) // cores)
        return places if device == "CPU" else min(places, int(machine.get(device, 0)))

    for cores in range(_MOST_CORES, 0, -1):
        if sum(count_places(machine, cores) for machine in machines) >= workers:
            return cores
    raise ConfigError(
        f"The Ray cluster has no core for each of {workers} processes"
        + ("" if device == "CPU" else f" on the machines that have a {device} for it"),
        where="ray_num_workers",
        next_step="lower it, or start Ray with more cores (num_cpus)",
        code="ray-cores",
    )


def _find_head_address() -> str:
    """Return the address of the cluster's first machine."""
    import ray

    heads = (node for node in ray.nodes() if "node:__internal_head__" in node["Resources"])
    return str(next(heads)["NodeManagerAddress"])


def _build_worker(stock: Any) -> type:
    """Return the class of the processes, which Ray sends to the cluster."""

    class RankWorker(stock):
        """Trains as one of several processes."""

        def _training_function(self, config: dict[str, Any]) -> None:
            from sentifactory.training.llamafactory.train_recipe import train_recipe

            os.environ.pop("USE_RAY", None)  # it is in effect: this process shall start no others
            os.chdir(config["folder"])
            train_recipe(config["recipe"], config["overrides"], **config["options"])

    return RankWorker
