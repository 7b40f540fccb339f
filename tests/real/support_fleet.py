"""What runs in the network namespaces of the fleet's tests: `backend`, a paid model server, and `clients` of a gateway.

The backend writes the text of each request that it has answered into a file, one line each.
"""

import http.client
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
PARTS = ["one ", "two ", "three"]


def backend(address: str, port: int, served: str) -> None:
    """Serve until the process is killed. A stream waits after its first part for a line on stdin."""
    lock, go_on = threading.Lock(), threading.Event()
    threading.Thread(target=_wait_for_line, args=(go_on,), daemon=True).start()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            return

        def do_GET(self) -> None:
            self._answer({"object": "list", "data": [{"id": "m", "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            text = body["messages"][-1]["content"]
            with lock, open(served, "a") as file:
                file.write(f"{text}\n")
            if body.get("stream"):
                self._stream()
                return
            message = {"role": "assistant", "content": "".join(PARTS)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._answer({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": USAGE})

        def _answer(self, document: dict[str, Any]) -> None:
            data = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            for number, part in enumerate(PARTS):
                self._event({"choices": [{"index": 0, "delta": {"content": part}, "finish_reason": None}]})
                if number == 0:
                    go_on.wait(60)
            self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            self._event({"choices": [], "usage": USAGE})
            self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True

        def _event(self, document: dict[str, Any]) -> None:
            self.wfile.write(b"data: " + json.dumps({"id": "c", "model": "m", **document}).encode() + b"\n\n")
            self.wfile.flush()

    class Server(ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads = True

    Server((address, port), Handler).serve_forever()


def _wait_for_line(go_on: threading.Event) -> None:
    sys.stdin.readline()
    go_on.set()


def clients(port: int, count: int, name: str) -> None:
    """Ask `count` times at once; print a JSON list of [text, status, Retry-After]."""
    found: list[Any] = [None] * count

    def ask(number: int) -> None:
        text = f"{name}-{number}"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        body = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": text}]}
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            found[number] = [text, response.status, response.getheader("retry-after")]
        except OSError as error:
            found[number] = [text, 0, str(error)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(found))


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    if kind == "backend":
        backend(arguments[0], int(arguments[1]), arguments[2])
    else:
        clients(int(arguments[0]), int(arguments[1]), arguments[2])
