"""A model behind a web page, on Ray Serve: prompts wait in a queue, each replica makes one clip after the other.

    pip install 'comfyui-videocrafter[ray]'
    MODEL=videocrafter_tiny_t2v serve run serving.app:app

Then open http://127.0.0.1:8000. The settings are environment variables: MODEL (a file, or a bundled model), DEVICE, REPLICAS (one a GPU),
WAITING (most prompts that wait for each replica) and FOLDER (for the clips).

It is an example: it has no accounts and forgets its queue when it stops. Keep it on 127.0.0.1, or put it behind something that asks who
is there.
"""

# FastAPI reads the types of its functions, which Ray may have sent without their module: they must not be put off.
import asyncio
import os
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from ray import serve
from ray.serve.exceptions import BackPressureError

import vc_core
from vc_core.devices import default_device
from vc_core.errors import VideoCrafterError
from vc_core.media.video import save_video

MODEL, DEVICE = os.environ.get("MODEL", "videocrafter_tiny_t2v"), os.environ.get("DEVICE", default_device())
REPLICAS, WAITING = int(os.environ.get("REPLICAS", "1")), int(os.environ.get("WAITING", "20"))
FOLDER = Path(os.environ.get("FOLDER", Path(tempfile.gettempdir()) / "videocrafter_clips"))
PAGE = Path(__file__).with_name("page.html")
#: Finished jobs that are remembered.
REMEMBERED = 1000
#: How often a replica is asked whether it is well, and how long it may take, in seconds: a clip is made in a thread beside.
ASKED_EVERY, ANSWERED_WITHIN = 10, 60

web = FastAPI(title="VideoCrafter")


class Request(BaseModel):
    """What a clip is made from; without a value, the model's own setting."""

    prompt: str = Field(max_length=2000)
    negative_prompt: str = Field("", max_length=2000)
    seed: int | None = None
    steps: int | None = Field(None, ge=1, le=200)
    frames: int | None = Field(None, ge=1, le=64)
    height: int | None = Field(None, ge=16, le=1024)
    width: int | None = Field(None, ge=16, le=1024)


@dataclass
class Job:
    """A prompt on its way: ``waiting``, ``done`` or ``failed``."""

    status: str = "waiting"
    error: str = ""
    task: asyncio.Task | None = None


@serve.deployment(
    num_replicas=REPLICAS, max_ongoing_requests=1, max_queued_requests=WAITING, health_check_period_s=ASKED_EVERY,
    health_check_timeout_s=ANSWERED_WITHIN, ray_actor_options={"num_gpus": 1 if DEVICE.startswith("cuda") else 0},
)
class Maker:
    """A replica: it has the model and makes one clip at a time."""

    def __init__(self, model: str, device: str, folder: str) -> None:
        self.model, self.folder = vc_core.load(model, device=device), Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    async def make(self, name: str, settings: dict[str, Any]) -> str:
        """Make a clip; the answer is what was wrong, or nothing."""
        return await asyncio.to_thread(self._make, name, settings)

    def _make(self, name: str, settings: dict[str, Any]) -> str:
        prompts = settings.pop("prompt"), settings.pop("negative_prompt")
        try:
            clip = self.model.text_to_video(*prompts, **settings)[0]
            save_video(clip, self.folder / f"{name}.mp4", fps=8)
        except VideoCrafterError as error:
            return str(error)
        return ""

    def check_health(self) -> None:
        """Ray Serve replaces a replica for which this raises."""
        if self.model.device.type == "cuda":
            import torch

            torch.zeros(1, device=self.model.device).add(1).item()  # fails for good after an error of the GPU


@serve.deployment(num_replicas=1)
@serve.ingress(web)
class Front:
    """The web page, and the queue: jobs wait for a free replica in the handle."""

    def __init__(self, maker: Any) -> None:
        self.maker, self.jobs = maker, dict[str, Job]()

    @web.get("/", response_class=FileResponse)
    async def page(self) -> FileResponse:
        return FileResponse(PAGE, media_type="text/html")

    @web.get("/health")
    async def health(self) -> dict[str, Any]:
        """Whether the page answers and how long the queue is; ``serve status`` knows of the replicas."""
        waiting = sum(job.status == "waiting" for job in self.jobs.values())
        return {"status": "ok", "model": MODEL, "replicas": REPLICAS, "waiting": waiting}

    @web.post("/clips", status_code=202)
    async def add(self, request: Request) -> dict[str, str]:
        """Put a prompt into the queue; 503 if it is full."""
        if sum(job.status == "waiting" for job in self.jobs.values()) >= (WAITING + 1) * REPLICAS:
            raise HTTPException(503, "The queue is full: try again later.")
        name, job = uuid.uuid4().hex, Job()
        self.jobs[name] = job
        job.task = asyncio.create_task(self._run(name, job, request))
        for old in [each for each, job in self.jobs.items() if job.status != "waiting"][:-REMEMBERED]:
            del self.jobs[old]
        return {"id": name}

    async def _run(self, name: str, job: Job, request: Request) -> None:
        try:
            job.error = await self.maker.make.remote(name, request.model_dump(exclude_none=True))
        except BackPressureError:
            job.error = "The queue is full: try again later."
        except Exception as error:  # a lost replica, say; the page must show an end
            job.error = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        job.status = "failed" if job.error else "done"

    @web.get("/clips/{name}.mp4", response_class=FileResponse)
    async def clip(self, name: str) -> FileResponse:
        """The clip of a job that is done. The address would match the next function's, too, so this one comes first."""
        if self._job(name).status != "done":
            raise HTTPException(404, "There is no clip of that id yet.")
        return FileResponse(FOLDER / f"{name}.mp4", media_type="video/mp4")

    @web.get("/clips/{name}")
    async def status(self, name: str) -> dict[str, Any]:
        """What became of a job, and how many are before it."""
        job = self._job(name)
        waiting = [each for each, other in self.jobs.items() if other.status == "waiting"]
        return {"status": job.status, "error": job.error, "before": waiting.index(name) if name in waiting else 0}

    def _job(self, name: str) -> Job:
        if name not in self.jobs:
            raise HTTPException(404, "There is no job of that id.")
        return self.jobs[name]


app = Front.bind(Maker.bind(MODEL, DEVICE, str(FOLDER)))
