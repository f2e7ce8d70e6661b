"""The recorded LoRA files: what each holds, and what the core computes with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import goldens
from harness.goldens import Recording
from vc_core.family.model_file import ModelFile
from vc_core.lora.merging import LoraSetting, with_loras
from vc_core.models.conditioning import Conditioning
from vc_core.models.unet import UNet


@dataclass(frozen=True)
class LoraRecord:
    """A row of ``files.json``.

    Attributes:
        layers: the paths of the layers that the file changes, in the order of its recorded sums.
        ranks, scales: all that occur in it; a scale is alpha / rank.
    """

    file: str
    layers: list[str]
    ranks: list[int]
    scales: list[float]

    @property
    def stem(self) -> str:
        """The start of the names of what is recorded of it."""
        return Path(self.file).stem


def recorded() -> Recording:
    """The folder."""
    return goldens.recording(goldens.LORA_FILES)


def records() -> list[LoraRecord]:
    """The files that are recorded; none if the folder isn't there."""
    if not (recorded().folder / "files.json").exists():
        return []
    rows: list[dict[str, Any]] = recorded().json("files.json")
    return [LoraRecord(row["file"], row["layers"], row["ranks"], row["scales"]) for row in rows]


def path(record: LoraRecord) -> Path:
    """The LoRA file."""
    return recorded().path(record.file)


def open_model(folder: Path) -> ModelFile:
    """The UNet that the LoRAs are for, written into a folder and opened, with what its configuration says beyond its tensors."""
    return ModelFile.open(recorded().write_checkpoint(folder / f"{goldens.LORA_FILES}.safetensors"), recorded().configuration)


def with_lora(file: ModelFile, record: LoraRecord, strength: float = 1.0) -> ModelFile:
    """The model file with a recorded LoRA."""
    return with_loras(file, [LoraSetting(path(record), strength)])


@torch.inference_mode()
def output(file: ModelFile) -> Tensor:
    """What the UNet of a model file gives for the recorded inputs, ``[B, C, T, h, w]``."""
    golden = recorded().read("expected")
    unet = file.load("unet", "cpu", torch.float32)
    assert isinstance(unet, UNet)
    return unet(golden["x"], golden["timesteps"], Conditioning(golden["context"], fps=golden["fps"]))
