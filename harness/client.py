"""A small client of a running ComfyUI, over its HTTP and websocket interfaces."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests
import websocket

Prompt = dict[str, dict[str, Any]]  # a graph in ComfyUI's API format: node id -> {"class_type", "inputs"}
Outputs = dict[str, dict[str, Any]]  # node id -> what the node showed, e.g. {"images": [file, ...]}
File = dict[str, str]  # {"filename", "subfolder", "type"}, as in Outputs

PREVIEW_IMAGE = 1  # the first 4 bytes of a binary message


class ComfyError(RuntimeError):
    """A graph that ComfyUI refused or that failed while running.

    `kind` is the exception's type, or the validation error's type; `traceback` is empty for the latter, unless validating itself failed.
    """

    def __init__(self, message: str, node_id: str = "", node_type: str = "", kind: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.node_id, self.node_type, self.kind, self.traceback = node_id, node_type, kind, traceback


class Interrupted(ComfyError):
    """The run was cancelled."""


@dataclass(frozen=True)
class Progress:
    """One step of one node."""

    node_id: str
    value: int
    maximum: int


class Client:
    """Talks to the ComfyUI at an address such as `http://127.0.0.1:8188`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.client_id = uuid.uuid4().hex
        self._http = requests.Session()
        self._http.trust_env = False  # a proxy has no business with 127.0.0.1

    def object_info(self) -> dict[str, dict[str, Any]]:
        """Every node class the server has, with its inputs and outputs."""
        return self.get("/object_info")

    def get(self, path: str, **query: str) -> Any:
        """The JSON that the server answers on a path."""
        response = self._http.get(self.address + path, params=query, timeout=60)
        response.raise_for_status()
        return response.json()

    def post(self, path: str, content: dict[str, Any]) -> requests.Response:
        """Posts JSON, with NaN as Python writes it; the caller looks at the status."""
        headers = {"Content-Type": "application/json"}
        return self._http.post(self.address + path, data=json.dumps(content), headers=headers, timeout=60)

    def queue(self, prompt: Prompt) -> str:
        """Queues a graph and returns its id. Raises ComfyError if any node of it is refused."""
        response = self.post("/prompt", {"prompt": prompt, "client_id": self.client_id})
        answer = response.json()
        if response.status_code != 200 or answer.get("node_errors"):
            raise _refusal(answer)
        return answer["prompt_id"]

    def run(
        self,
        prompt: Prompt,
        on_progress: Callable[[Progress], None] | None = None,
        on_preview: Callable[[bytes], None] | None = None,
        timeout: float = 600,
    ) -> Outputs:
        """Queues a graph and waits until it is done.

        `on_progress` gets every step, `on_preview` every preview (a JPEG or PNG file's bytes). Raises
        ComfyError if a node fails, Interrupted if the run is cancelled, TimeoutError after `timeout` silent seconds.
        """
        url = f"{self.address.replace('http', 'ws', 1)}/ws?clientId={self.client_id}"
        connection = websocket.create_connection(url, timeout=timeout, http_no_proxy=["*"])
        try:
            prompt_id = self.queue(prompt)
            self._follow(connection, prompt_id, on_progress, on_preview)
        except websocket.WebSocketTimeoutException:
            raise TimeoutError(f"ComfyUI said nothing for {timeout:g} s while running the graph.") from None
        except (websocket.WebSocketConnectionClosedException, ConnectionError) as error:
            raise ComfyError(f"ComfyUI closed the connection while running the graph: {error}") from error
        finally:
            connection.close()
        return self.get(f"/history/{prompt_id}")[prompt_id]["outputs"]

    def view(self, file: File) -> bytes:
        """The bytes of an output, input or temporary file."""
        response = self._http.get(f"{self.address}/view", params=file, timeout=60)
        response.raise_for_status()
        return response.content

    def upload(self, name: str, content: bytes) -> str:
        """Puts a file into the server's input folder, over one of that name; returns the name that LoadImage and its like take."""
        response = self._http.post(
            f"{self.address}/upload/image", files={"image": (name, content)}, data={"overwrite": "true"}, timeout=60
        )
        response.raise_for_status()
        return response.json()["name"]

    def interrupt(self) -> None:
        """Cancels the graph that is running."""
        self.post("/interrupt", {}).raise_for_status()

    def free(self) -> None:
        """Asks the server to unload all models and forget cached results."""
        self.post("/free", {"unload_models": True, "free_memory": True}).raise_for_status()

    def _follow(
        self,
        connection: websocket.WebSocket,
        prompt_id: str,
        on_progress: Callable[[Progress], None] | None,
        on_preview: Callable[[bytes], None] | None,
    ) -> None:
        """Reads messages until the graph has ended; the last one is `executing` with no node."""
        failure: ComfyError | None = None
        while True:
            message = connection.recv()
            if isinstance(message, bytes):
                if on_preview and int.from_bytes(message[:4], "big") == PREVIEW_IMAGE:
                    on_preview(message[8:])  # after the kind and the image's format
                continue
            if not message:
                raise ComfyError("ComfyUI closed the connection while running the graph.")
            event = json.loads(message)
            kind, data = event["type"], event.get("data") or {}
            if data.get("prompt_id") != prompt_id:
                continue
            if kind == "progress" and on_progress:
                on_progress(Progress(str(data["node"]), data["value"], data["max"]))
            elif kind == "execution_error":
                failure = _failure(data)
            elif kind == "execution_interrupted":
                failure = Interrupted(
                    f"The run was cancelled in {data['node_type']} (node {data['node_id']}).", str(data["node_id"]), data["node_type"]
                )
            elif kind == "executing" and data["node"] is None:
                if failure:
                    raise failure
                return


def files_of(outputs: Outputs) -> list[File]:
    """The saved files among the outputs, without temporary ones such as previews."""
    entries = [entry for shown in outputs.values() for listed in shown.values() if isinstance(listed, list) for entry in listed]
    return [entry for entry in entries if isinstance(entry, dict) and entry.get("type") == "output"]


def _failure(data: dict[str, Any]) -> ComfyError:
    return ComfyError(
        f"{data['node_type']} (node {data['node_id']}) failed: {data['exception_message'].strip()}",
        str(data["node_id"]),
        data["node_type"],
        data["exception_type"],
        "".join(data.get("traceback") or []),
    )


def _refusal(answer: dict[str, Any]) -> ComfyError:
    """The error of a graph that failed validation: the first node's first error names it, the message has them all."""
    refused = [
        (node_id, node["class_type"], error)
        for node_id, node in (answer.get("node_errors") or {}).items()
        for error in node["errors"]
    ]
    if not refused:
        error = answer["error"]
        return ComfyError(f"ComfyUI refused the graph: {error['message']} {error.get('details', '')}".strip(), kind=error["type"])
    lines = [f"{node_type} (node {node_id}): {error['message']}: {error['details']}" for node_id, node_type, error in refused]
    node_id, node_type, error = refused[0]
    traceback = "".join((error.get("extra_info") or {}).get("traceback") or [])
    return ComfyError("ComfyUI refused the graph:\n  " + "\n  ".join(lines), node_id, node_type, error["type"], traceback)
