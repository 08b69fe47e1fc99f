"""What a network makes while it trains, drawn every so many steps from the same noise, so that one sees it learn."""

import io

import pytorch_lightning as L
import torch

from cluster.folder import Folder

FOLDER = "samples"
"""Where they are, in the run's directory."""


class Samples(L.Callback):
    """Writes what a module's ``samples`` returns: pictures in [0, 1], shape (N, C, H, W), or lines of text.

    Args:
        folder: The run directory.
        every: Steps from one to the next.
    """

    def __init__(self, folder: Folder, every: int) -> None:
        self.folder, self.every = folder, every

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *arguments: object) -> None:
        if trainer.is_global_zero and trainer.global_step % self.every == 0:
            pl_module.eval()
            with torch.no_grad():
                made = pl_module.samples()
            pl_module.train()
            name = f"{FOLDER}/step-{trainer.global_step:08}"
            if isinstance(made, torch.Tensor):
                self.folder.write(f"{name}.png", drawn(made), durable=False)
            else:
                self.folder.write(f"{name}.txt", "\n".join([*made, ""]).encode(), durable=False)


def drawn(pictures_NCHW: torch.Tensor) -> bytes:
    """Pictures in [0, 1] in rows, as a PNG."""
    from workloads.data._pictures import contact_sheet

    sheet = io.BytesIO()
    pixels = (pictures_NCHW.float() * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    contact_sheet(pixels, [("", "")] * len(pixels), sheet)
    return sheet.getvalue()
