"""How many cores each process of a run on Ray gets, for which Ray would otherwise wait without end."""

from __future__ import annotations

import pytest

from sentifactory.errors import ConfigError
from sentifactory.training.processes.ray_ranks import choose_cores


@pytest.mark.parametrize(
    ("machines", "workers", "device", "cores"),
    [
        ([{"CPU": 40.0}], 2, "CPU", 10),
        ([{"CPU": 3.0}], 2, "CPU", 1),
        ([{"CPU": 4.0}, {"CPU": 12.0}], 2, "CPU", 6),  # both on the second
        ([{"CPU": 4.0}, {"CPU": 32.0, "GPU": 1.0}], 1, "GPU", 10),
        ([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 32.0, "GPU": 1.0}], 2, "GPU", 4),
    ],
)
def test_each_process_gets_cores_that_exist(
    machines: list[dict[str, float]], workers: int, device: str, cores: int
) -> None:
    assert choose_cores(machines, workers, device) == cores


@pytest.mark.parametrize(
    ("machines", "device"), [([{"CPU": 1.0}, {"CPU": 1.0}], "CPU"), ([{"CPU": 9.0}, {"CPU": 2.0, "GPU": 3.0}], "GPU")]
)
def test_fewer_cores_than_processes(machines: list[dict[str, float]], device: str) -> None:
    with pytest.raises(ConfigError) as refused:
        choose_cores(machines, 3, device)
    assert (refused.value.code, refused.value.where) == ("ray-cores", "ray_num_workers")
