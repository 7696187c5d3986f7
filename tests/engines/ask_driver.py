"""Stands for the comparison in the tests that kill it: starts an engine, says so, and asks reviews until it is ended.

Usage: ask_driver.py MODEL NUMBER_OF_REVIEWS; says "start", "ready ADDRESS KEY" and "done" on standard output. Before
it asks it waits for a line on its standard input, or for its end.
"""

import sys

from sentifactory.engines.vllm.start_vllm import VllmOptions
from sentifactory.engines.vllm.vllm_engine import VllmEngine
from sentifactory.records import Review
from sentifactory.system.stop_signals import raise_on_signals
from sentifactory.task.task import BINARY_SENTIMENT

print("start", flush=True)
options = VllmOptions(max_restarts=0)
with (
    raise_on_signals(),  # as around every command
    VllmEngine(sys.argv[1], BINARY_SENTIMENT, name="base", options=options, concurrency=4) as engine,
):
    print(f"ready {engine.address} {engine.key}", flush=True)
    sys.stdin.readline()
    engine.predict([Review(f"房间很好，第{number}次入住") for number in range(int(sys.argv[2]))])
print("done", flush=True)
