"""Memory and speed of image sets read from disk: python tests/benchmarks/memory_mapped.py

Writes 4,000 and 40,000 crops of 64x64x3 of real photographs to a temporary folder as JPEG (about 130 MB). Then, in a
fresh process each, reads the set in memory and memory-mapped, first when the Arrow file has to be made and then when it
is there, goes through its training split and trains a little. Prints peaks of anonymous memory (what the process itself
has allocated) and of resident memory (with the pages of mapped files, which the system may take back at any time), and
examples/s of the batch engine alone and with the training steps of a small CNN, in memory and mapped by turns.
"""

import itertools
import json
import statistics
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
NUM_STEPS = 20
NUM_TURNS = 5


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


def set_up(source: str, cache: str, mapped: bool):
    """The data module, ready."""
    from workloads.data.images import Images

    data = Images(source, BATCH, cache_dir=cache, memory_limit=1e-9 if mapped else 8.0)
    data.setup()
    return data


def go_through(data, num_batches: int = 200) -> float:
    """Examples/s of the batch engine alone."""
    started = time.perf_counter()
    batches = itertools.islice(data.train_dataloader(), num_batches)
    return sum(len(batch["target"]) for batch in batches) / (time.perf_counter() - started)


def train(data) -> float:
    """Examples/s of some training steps."""
    import torch

    from lightning_modules.cnn import CNN

    model = CNN(data.input_shape, data.output, data.num_outputs, channels=(16, 32, 64), convs_per_block=1)
    optimizer = torch.optim.AdamW(model.parameters())
    num_seen, started = 0, time.perf_counter()
    for _, batch in zip(range(NUM_STEPS), data.train_dataloader(), strict=False):
        batch = data.on_after_batch_transfer(batch, 0)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch["inputs"]), batch["target"]).backward()
        optimizer.step()
        num_seen += len(batch["target"])
    return num_seen / (time.perf_counter() - started)


def memory(source: str, cache: str, mode: str) -> dict[str, float]:
    """Peaks of this process over set-up, an epoch and some training steps."""
    peaks = Peaks()
    peaks.start()
    started = time.perf_counter()
    data = set_up(source, cache, mode != MODES[0])
    seconds = time.perf_counter() - started
    go_through(data, len(data.train_dataloader()))
    train(data)
    return {"seconds": seconds, "anonymous": peaks.anonymous, "resident": peaks.resident}


def speed(source: str, cache: str) -> dict[str, float]:
    """Examples/s, taken by turns, so that what else the machine does falls on both."""
    import torch

    torch.set_num_threads(1)  # the in-memory gather of two threads suffers most from whatever else runs
    sets = {mode: set_up(source, cache, mode != MODES[0]) for mode in (MODES[0], MODES[-1])}
    found = {f"{kind.__name__} {mode}": [] for kind in (go_through, train) for mode in sets}
    for _ in range(NUM_TURNS):
        for mode, data in sets.items():
            found[f"go_through {mode}"].append(go_through(data))
            found[f"train {mode}"].append(train(data))
    return {name: statistics.median(rates) for name, rates in found.items()}


def in_fresh_process(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        peaks = {}
        for size in SIZES:
            source = str(Path(folder, str(size)))
            write_photos(Path(source), size)
            for mode in MODES:
                known = peaks[size, mode] = in_fresh_process("memory", source, folder + "/cache", mode)
                print(
                    f"{size:6,} images, {mode:14}: set-up {known['seconds']:5.2f} s, peak MiB anonymous "
                    f"{known['anonymous']:5.0f}, resident {known['resident']:5.0f}",
                    flush=True,
                )
            rates = in_fresh_process("speed", source, folder + "/cache")
            for name, kind in (("go_through", "engine alone"), ("train", "training steps")):
                mapped, held = rates[f"{name} {MODES[-1]}"], rates[f"{name} {MODES[0]}"]
                print(
                    f"{size:6,} images, {kind:14}: examples/s mapped {mapped:,.0f}, in memory {held:,.0f}: "
                    f"{mapped / held:.2f}x",
                    flush=True,
                )
    small, large = SIZES
    for mode in MODES:
        for kind in ("anonymous", "resident"):
            ratio = peaks[large, mode][kind] / peaks[small, mode][kind]
            print(f"peak {kind} memory, {large:,} images against {small:,}, {mode}: {ratio:.2f}x")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        print(json.dumps({"memory": memory, "speed": speed}[sys.argv[1]](*sys.argv[2:])))
