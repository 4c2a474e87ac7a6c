"""A loopback server that speaks OpenAI's chat API and fails on demand. The model's name says how:

    ok                  answers
    e401 e404 e500 e503 that status
    e429, e429:7        rate limited, without and with Retry-After (seconds)
    e429quota           the quota is used up
    ctx                 the prompt is too long
    badjson             a body that is no JSON
    drop                closes the connection before it answers
    slow:2              answers after 2 seconds
    flaky:2             two times 500, then answers
    limit:20            takes 20 requests in any second; others get 429 with a Retry-After of 1 second
    tool                calls the first tool
    cut:2               a stream that ends after 2 pieces, without a finish reason
    broken:2            a stream whose connection breaks after 2 pieces (chunked encoding, no last chunk)
    silent              a stream that ends properly and doesn't say what it used
    slowstream:50       50 ms between the pieces of a stream
    mute                answers without the log probabilities that were asked for
    hang:3              takes the request and hangs up after 3 seconds
    mixed:20            20 % of the calls, drawn by the server's seed, have a fault of `MIXED`, each kind in its turn

While `dead` is set, mixed models hang up before they answer. `faults` counts the faults of mixed models by kind.

It counts calls and tokens by itself, by model: what it says is what a provider would bill. A name without a known
prefix answers, too.

    with FaultServer() as server:
        server.base            # http://127.0.0.1:<port>/v1
        server.calls["ok"]     # 3
        server.connections     # 1: that were opened
        server.tokens["ok"]    # (120, 30): input, output, of answers that were complete
        server.answers         # those: model, last message, tokens
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ERRORS = {
    "e401": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided"),
    "e404": (404, "invalid_request_error", "model_not_found", "The model `e404` does not exist"),
    "e429": (429, "rate_limit_error", "rate_limit_exceeded", "Rate limit reached"),
    "e429quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota"),
    "e500": (500, "server_error", None, "boom"),
    "e503": (503, "server_error", None, "overloaded"),
    "ctx": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens",
    ),
}
MIXED = ("e429:1", "e500", "hang:9", "drop", "badjson", "ctx")
"""The faults of a mixed model."""

_FIELDS = re.compile(r"`\[\[ ## (\w+) ## \]\]`")
_JSON_FIELDS = re.compile(r"order of fields: (.*)\.")


class FaultServer:
    """The server, on a port of its own, from `__enter__` to `__exit__`."""

    def __init__(self, seed: int = 0) -> None:
        self.dead = False
        self.faults: Counter[str] = Counter()
        self._luck = random.Random(seed)
        self.lock = threading.Lock()
        self.connections = 0
        self.calls: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self._taken: dict[str, deque[float]] = {}
        self.tokens: dict[str, tuple[int, int]] = {}
        self.requests: list[dict[str, Any]] = []
        self.answers: list[tuple[str, str, dict[str, int]]] = []
        handler = type("Handler", (_Handler,), {"fault_server": self})
        self._http = _Quiet(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.base = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> FaultServer:
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=5)

    def reset(self) -> None:
        """Forget what was counted."""
        with self.lock:
            self.calls.clear()
            self.rejected.clear()
            self._taken.clear()
            self.faults.clear()
            self.tokens.clear()
            self.requests.clear()
            self.answers.clear()

    def note_call(self, body: dict[str, Any], path: str, authorization: str | None) -> int:
        """Count the call; its number for this model, from 1."""
        with self.lock:
            model = body.get("model", "")
            self.calls[model] += 1
            self.requests.append({"model": model, "path": path, "authorization": authorization, "body": body})
            return self.calls[model]

    def takes(self, model: str, limit: int) -> bool:
        """Is there room for one more in this second? Counts it, or the rejection."""
        with self.lock:
            now, taken = time.monotonic(), self._taken.setdefault(model, deque())
            while taken and taken[0] <= now - 1.0:
                taken.popleft()
            if len(taken) >= limit:
                self.rejected[model] += 1
                return False
            taken.append(now)
            return True

    def drawn(self, percent: int) -> str:
        """What a mixed model does this time. Counts its faults."""
        with self.lock:
            if self.dead:
                self.faults["dead"] += 1
                return "drop"
            if self._luck.random() * 100 >= percent:
                return "ok"
            fault = MIXED[(self.faults.total() - self.faults["dead"]) % len(MIXED)]
            self.faults[fault] += 1
            return fault

    def note_tokens(self, model: str, used: dict[str, int], body: dict[str, Any]) -> None:
        """Count what a complete answer used."""
        with self.lock:
            self.answers.append((model, _content(body["messages"][-1]), used))
            given, made = self.tokens.get(model, (0, 0))
            self.tokens[model] = given + used["prompt_tokens"], made + used["completion_tokens"]


class _Quiet(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what many tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or head and body of an answer are 40 ms apart
    fault_server: FaultServer

    def setup(self) -> None:
        with self.fault_server.lock:
            self.fault_server.connections += 1
        super().setup()

    def log_message(self, *args: Any) -> None:
        """Be quiet."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
        model = body.get("model", "")
        call = self.fault_server.note_call(body, self.path, self.headers.get("authorization"))
        kind, _, arg = model.rsplit("/", 1)[-1].partition(":")
        if kind == "mixed":
            kind, _, arg = self.fault_server.drawn(int(arg)).partition(":")
        if kind in ERRORS:
            self._error(*ERRORS[kind], retry_after=arg)
        elif kind == "flaky" and call <= int(arg or 1):
            self._error(500, "server_error", None, f"flaky {call}")
        elif kind == "limit" and not self.fault_server.takes(model, int(arg)):
            self._error(*ERRORS["e429"], retry_after="1")
        elif kind in {"drop", "hang"}:
            time.sleep(float(arg or 0))
            self._hang_up()
        elif kind == "badjson":
            self._body(200, b"{oops")
        else:
            if kind == "slow":
                time.sleep(float(arg))
            self._answer(model, kind, arg, body, call)

    def _answer(self, model: str, kind: str, arg: str, body: dict[str, Any], call: int) -> None:
        text = answer_to(body)
        used = usage(body, text)
        head = {"id": f"chatcmpl-{call}", "created": int(time.time()), "model": model}
        if body.get("stream"):
            self._stream(kind, arg, text, head, used, body)
            return
        message, finish = {"role": "assistant", "content": text}, "stop"
        if kind == "tool" and body.get("tools"):
            message, finish = _tool_call(body["tools"][0]["function"]), "tool_calls"
        choice = {"index": 0, "message": message, "finish_reason": finish}
        if body.get("logprobs") and kind != "mute":
            choice["logprobs"] = {"content": logprobs_of(text)}
        self.fault_server.note_tokens(model, used, body)
        self._json(200, {**head, "object": "chat.completion", "choices": [choice], "usage": used})

    def _stream(
        self, kind: str, arg: str, text: str, head: dict[str, Any], used: dict[str, int], body: dict[str, Any]
    ) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        chunked = kind == "broken"
        self.send_header(*(("transfer-encoding", "chunked") if chunked else ("connection", "close")))
        self.end_headers()
        self.close_connection = True
        chunk = {**head, "object": "chat.completion.chunk"}
        for i, piece in enumerate(re.findall(r"\S+\s*", text)):
            if kind in {"cut", "broken"} and i >= int(arg or 2):
                self._hang_up()
                return
            if kind == "slowstream":
                time.sleep(float(arg or 50) / 1000)
            delta = {"role": "assistant", "content": piece} if i == 0 else {"content": piece}
            self._event({**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}, chunked)
        self._event({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, chunked)
        if kind != "silent" and (body.get("stream_options") or {}).get("include_usage"):
            self._event({**chunk, "choices": [], "usage": used}, chunked)
        self.fault_server.note_tokens(head["model"], used, body)
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, event: dict[str, Any], chunked: bool) -> None:
        data = b"data: " + json.dumps(event).encode() + b"\n\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
        self.wfile.flush()

    def _error(self, status: int, kind: str, code: str | None, message: str, retry_after: str = "") -> None:
        headers = {"retry-after": retry_after} if retry_after else {}
        self._json(status, {"error": {"message": message, "type": kind, "param": None, "code": code}}, headers)

    def _json(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._body(status, json.dumps(content).encode(), headers)

    def _body(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", "x-request-id": "req-1", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.close()


def answer_to(body: dict[str, Any]) -> str:
    """An answer in the format that DSPy's Chat or JSON adapter asked for, else one sentence."""
    asked = _content(body["messages"][-1])
    fields = [f for f in _FIELDS.findall(asked) if f != "completed"]
    if fields:
        told = "".join(f"[[ ## {f} ## ]]\n{_value(f)}\n\n" for f in fields)
        return told + "[[ ## completed ## ]]"
    if wanted := _JSON_FIELDS.search(asked):
        return json.dumps({f: _value(f) for f in re.findall(r"`(\w+)`", wanted.group(1))})
    return "hello from the fault server"


def usage(body: dict[str, Any], text: str) -> dict[str, int]:
    """What this server bills: a token per four characters, rounded up."""
    given = -(-sum(len(_content(m)) for m in body["messages"]) // 4)
    made = -(-len(text) // 4)
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}


def logprobs_of(text: str) -> list[dict[str, Any]]:
    """Log probabilities as this server gives them: tokens of four characters, -0.1 to -0.7 in turn."""
    tokens = [text[at : at + 4] for at in range(0, len(text), 4)]
    return [
        {"token": token, "logprob": -(i % 7 + 1) / 10, "bytes": list(token.encode()), "top_logprobs": []}
        for i, token in enumerate(tokens)
    ]


def _content(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _value(field: str) -> str | float:
    return 0.9 if "conf" in field else f"{field} value"


def _tool_call(function: dict[str, Any]) -> dict[str, Any]:
    arguments = json.dumps(dict.fromkeys(function.get("parameters", {}).get("properties", {}), "x"))
    called = {"id": "call_1", "type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [called]}
