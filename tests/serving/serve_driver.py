"""Serves a scripted engine, or a vLLM of its own, as `sentifactory serve` does: `serve_driver.py SECONDS [MODEL]`."""

from __future__ import annotations

import sys

from live_service import build_service, build_upstream_service

from sentifactory.engines.vllm.start_vllm import VllmOptions
from sentifactory.serving.backends.upstream import UpstreamBackend, link_to_process
from sentifactory.serving.http.api import build_app
from sentifactory.serving.http.server import bind_socket, run_server
from sentifactory.serving.service_settings import Access, Limits
from sentifactory.task.task import BINARY_SENTIMENT
from tools.service_bench.scripted_engine import ScriptedEngine

access, limits = Access(port=0), Limits()
bound = bind_socket(access)
if len(sys.argv) > 2:
    open_link = link_to_process(sys.argv[2], "base", BINARY_SENTIMENT, VllmOptions(), 16, limits.request_s)
    service = build_upstream_service(UpstreamBackend(open_link, first_pause_s=0.2), limits)
else:
    service = build_service(ScriptedEngine(BINARY_SENTIMENT, batch_s=float(sys.argv[1])), limits)
port = bound.getsockname()[1]
run_server(build_app(service, access), service, bound, lambda: print(port, flush=True))
print("in order", flush=True)
