"""What a network makes while it trains, drawn every so many steps from the same noise, so that one sees it learn."""

import io
from functools import partial

import pytorch_lightning as L
import torch

from cluster.folder import Folder
from cluster.writing import Writer

FOLDER = "samples"
"""Where they are, in the run's directory."""


class Samples(L.Callback):
    """Writes what a module's ``samples`` returns: pictures in [0, 1], shape (N, C, H, W), or lines of text.

    Args:
        folder: The run directory.
        every: Steps from one to the next.
        writer: What writes for the run.
    """

    def __init__(self, folder: Folder, every: int, writer: Writer) -> None:
        self.folder, self.every, self.writer = folder / FOLDER, every, writer

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *arguments: object) -> None:
        if trainer.is_global_zero and trainer.global_step % self.every == 0:
            pl_module.eval()
            with torch.no_grad():
                made = pl_module.samples()
            pl_module.train()
            text = not isinstance(made, torch.Tensor)
            name = f"step-{trainer.global_step:08}.{'txt' if text else 'png'}"
            content = "\n".join([*made, ""]).encode() if text else drawn(made)
            self.writer.put(("samples", partial(self._write, name, content)))

    def _write(self, name: str, content: bytes) -> None:
        self.folder.make()
        self.folder.write(name, content, durable=False)


def drawn(pictures_NCHW: torch.Tensor) -> bytes:
    """Pictures in [0, 1] in rows, as a PNG."""
    from workloads.data._pictures import contact_sheet

    sheet = io.BytesIO()
    pixels = (pictures_NCHW.float() * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    contact_sheet(pixels, [("", "")] * len(pixels), sheet)
    return sheet.getvalue()
