"""``python -m benchmarks.few_steps``: the bundled few-step model beside the 25-step one that it was distilled from, in turns.

Both make the same prompts with their own settings, whole clips from prompt to frames. Besides the times there is what a judge of pixels
says of the clips.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np
import torch

import vc_core
from harness.judge import as_pixels, judge

from .deep_cache import SENTENCES

MODELS = {"videocrafter_tiny_t2v": 25, "videocrafter_tiny_turbo": 4}


def main() -> None:
    """Make the clips in turns, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.few_steps", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="clips of each model, one prompt each")
    parser.add_argument("--threads", type=int, help="of the processor")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    models = {name: vc_core.load(name) for name in MODELS}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    right = dict.fromkeys(models, 0)
    for index in range(-1, arguments.rounds):  # the first turn warms up
        sentence = SENTENCES[index % len(SENTENCES)]
        for name, model in models.items():
            start = time.perf_counter()
            video = model.text_to_video(sentence, seed=index + 1, steps=MODELS[name])[0]
            seconds[name].append(time.perf_counter() - start)
            seen = judge(as_pixels(video.numpy()))
            right[name] += sentence == f"a {seen.colour} {seen.shape} moving {seen.direction}" and index >= 0
    print("| model | steps | seconds, median | right |\n|---|---|---|---|")
    for name in models:
        print(f"| {name} | {MODELS[name]} | {median(seconds[name][1:]):.2f} | {right[name]} of {arguments.rounds} |")
    slow, fast = (np.array(seconds[name][1:]) for name in MODELS)
    print(f"\nA clip in few steps takes {np.median(fast / slow):.3f} of the time (median of the pairs).")


if __name__ == "__main__":
    main()
