"""A model server that answers as an Ollama does, always the same; runs in a pod, with the
worker's Python, which has nothing of this repository.

A text with the word `garbled` gets an answer that is no JSON.
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = {
    "primary_emotion": "Joy",
    "sentiment": "Positive",
    "confidence_score": 0.9,
    "key_phrases": [],
}
MODELS = {"models": [{"name": "tiny:1b", "digest": "0123456789abcdef"}]}


def chat(content: str, model: str = "tiny:1b") -> dict[str, Any]:
    """The whole answer to a call, with the model's text."""
    return {
        "model": model,
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": content},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 11,
        "eval_count": 7,
    }


class Handler(BaseHTTPRequestHandler):
    """The calls of the HTTP API that a worker makes."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._reply(MODELS)

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        self._reply(chat("not JSON" if b"garbled" in asked else json.dumps(GOOD)))

    def log_message(self, *_: object) -> None:
        pass

    def _reply(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("", 11434), Handler).serve_forever()
