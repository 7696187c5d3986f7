"""The service of typical tutorials, as a baseline for ours: FastAPI, a loaded model, one text per request.

No batching, no limits, no queue: FastAPI runs the function in its thread pool. An encoder classifies the text; a
language model writes its answer with `generate`.
"""
# No postponed annotations here: FastAPI evaluates annotations, and its types are imported in a function.

import argparse
import socket
from collections.abc import Callable
from typing import Any

from sentifactory.engines.local.transformers_engine import TransformersEngine
from sentifactory.records import Review
from sentifactory.system.progress import hide_progress
from sentifactory.task.task import BINARY_SENTIMENT


def load_classifier(model: str) -> Callable[[str], dict[str, Any]]:
    """Return a function that labels a text with an encoder."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from sentifactory.models.pooled_classifier import register_pooled_classes

    register_pooled_classes()  # encoders with mean pooling are a class of ours
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    network = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32, trust_remote_code=False)
    network.eval()

    def answer(text: str) -> dict[str, Any]:
        with torch.no_grad():
            logits = network(**tokenizer(text, return_tensors="pt", truncation=True, max_length=512)).logits[0]
        shares = torch.softmax(logits, -1)
        return {"label": int(shares.argmax()), "score": float(shares.max())}

    return answer


def load_writer(model: str) -> Callable[[str], dict[str, Any]]:
    """Return a function that labels a text with a language model's generated answer."""
    engine = TransformersEngine(model, BINARY_SENTIMENT, mode="generate", batch_size=1)

    def answer(text: str) -> dict[str, Any]:
        with hide_progress():
            (prediction,) = engine.predict([Review(text)])
        return {"label": prediction.label, "raw": prediction.raw}

    return answer


def main() -> None:
    """Serve until a signal arrives; print the port once the model is loaded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("encoder", "llm"))
    parser.add_argument("model")
    options = parser.parse_args()
    import uvicorn
    from fastapi import Body, FastAPI

    answer = (load_classifier if options.kind == "encoder" else load_writer)(options.model)
    app = FastAPI()

    def predict(text: str = Body(embed=True)) -> dict[str, Any]:
        return answer(text)

    app.add_api_route("/predict", predict, methods=["POST"])
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # the same as uvicorn's own
    bound.bind(("127.0.0.1", 0))
    bound.listen(2048)  # before the port is printed
    print(bound.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, backlog=2048)).run(sockets=[bound])


if __name__ == "__main__":
    main()
