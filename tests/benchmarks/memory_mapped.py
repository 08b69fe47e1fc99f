"""Memory and speed of image sets read from disk: python tests/benchmarks/memory_mapped.py

Writes 4,000 and 40,000 crops of 64x64x3 of real photographs to a temporary folder as JPEG (about 130 MB), then in a
fresh process each: reads the set in memory and memory-mapped, first when the Arrow file has to be made, then when it is
there, and goes through its training split. Prints peaks of anonymous memory (what the process itself has allocated) and
of resident memory (with the pages of mapped files, which the system may take back at any time), and examples/s of the
batch engine alone and with the training steps of a small CNN.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

SIZES = (4_000, 40_000)
MODES = ("in memory", "mapped, making", "mapped")
BATCH = 64
NUM_STEPS = 40


def write_photos(folder: Path, num_images: int) -> None:
    """Crops at random places, in random brightness, of six photographs; the photograph is the class."""
    import skimage.data
    from PIL import Image
    from sklearn.datasets import load_sample_images

    names = ("astronaut", "chelsea", "coffee", "rocket")
    photos = [getattr(skimage.data, name)() for name in names] + list(load_sample_images().images)
    random = np.random.default_rng(0)
    for k in range(len(photos)):
        (folder / f"photo_{k}").mkdir(parents=True)
    for i in range(num_images):
        k = i % len(photos)
        top, left = (random.integers(0, side - 63) for side in photos[k].shape[:2])
        crop = photos[k][top : top + 64, left : left + 64] * random.uniform(0.5, 1.0)
        Image.fromarray(crop.astype(np.uint8)).save(folder / f"photo_{k}" / f"{i}.jpg", quality=90)


class Peaks(threading.Thread):
    """Largest RssAnon and VmRSS of this process in MiB, looked at every 5 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.anonymous = self.resident = 0.0

    def run(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            known = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("RssAnon", "VmRSS"))}
            self.anonymous = max(self.anonymous, int(known["RssAnon"]) / 1024)
            self.resident = max(self.resident, int(known["VmRSS"]) / 1024)
            time.sleep(0.005)


def measure(source: str, cache: str, mapped: bool) -> dict[str, float]:
    """Set up, five epochs of the engine alone, and some training steps, in this process."""
    import torch

    from workloads.data.images import Images

    peaks = Peaks()
    peaks.start()
    data = Images(source, BATCH, cache_dir=cache, memory_limit=1e-9 if mapped else 8.0)
    started = time.perf_counter()
    data.setup()
    seconds = time.perf_counter() - started
    loader = data.train_dataloader()
    engine = []
    for _ in range(5):
        started = time.perf_counter()
        num_seen = sum(len(batch["target"]) for batch in loader)
        engine.append(num_seen / (time.perf_counter() - started))
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(4),
        torch.nn.Conv2d(32, 64, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(4),
        torch.nn.Flatten(), torch.nn.Linear(1024, data.num_outputs),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters())
    num_seen, started = 0, time.perf_counter()
    for _, batch in zip(range(NUM_STEPS), loader, strict=False):
        batch = data.on_after_batch_transfer(batch, 0)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch["inputs"]), batch["target"]).backward()
        optimizer.step()
        num_seen += len(batch["target"])
    return {
        "anonymous": peaks.anonymous,
        "resident": peaks.resident,
        "setup": seconds,
        "engine": sorted(engine)[2],
        "training": num_seen / (time.perf_counter() - started),
    }


def main() -> None:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            source = Path(folder, f"{size}")
            write_photos(source, size)
            for mode in MODES:
                command = [sys.executable, __file__, str(source), folder + "/cache", json.dumps(mode != MODES[0])]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                known = found[size, mode] = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"{size:6,} images, {mode:14}: set-up {known['setup']:5.2f} s; peak MiB, anonymous "
                    f"{known['anonymous']:4.0f}, resident {known['resident']:4.0f}; examples/s, engine "
                    f"{known['engine']:7,.0f}, training {known['training']:5,.0f}",
                    flush=True,
                )
    small, large = SIZES
    for mode in MODES:
        for kind in ("anonymous", "resident"):
            ratio = found[large, mode][kind] / found[small, mode][kind]
            print(f"peak {kind} memory, {large:,} images against {small:,}, {mode}: {ratio:.2f}x")
    for kind in ("engine", "training"):
        for size in SIZES:
            ratio = found[size, MODES[-1]][kind] / found[size, MODES[0]][kind]
            print(f"examples/s, {kind}, {size:,} images, mapped against in memory: {ratio:.2f}x")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))))
    else:
        main()
