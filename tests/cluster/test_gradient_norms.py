"""Norms of gradients: by gradients that are known."""

import pytest
import pytorch_lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader

from cluster.gradient_norms import GradientNorms


class Known(L.LightningModule):
    """Its gradient is the batch: of ``left`` the first two numbers, of ``right`` the third."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.idle = nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False), nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return (self.left(batch[:, :2]) + self.right(batch[:, 2:])).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_norms_are_those_of_known_gradients_before_clipping():
    norms = GradientNorms()
    batches = DataLoader(torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0], [0.0, 8.0, 6.0]]), batch_size=1)
    trainer = L.Trainer(
        max_epochs=1, callbacks=[norms], gradient_clip_val=1e-3, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(Known(), batches)
    restored = GradientNorms()
    restored.load_state_dict(norms.state_dict())
    for one in (norms, restored):
        assert one.take() == pytest.approx({
            "train/grad_norm": (5 + 2 + 10) / 3, "train/grad_norm_max": 10.0,
            "train/grad_norm/left": (5 + 0 + 8) / 3, "train/grad_norm/right": (0 + 2 + 6) / 3,
        })  # fmt: skip
        assert one.take() == {}


def test_a_run_writes_them_down_and_goes_on_with_them(raydeck):
    flags = ("train", "mlp", "--smoke", "--trainer.log_gradient_norms", "true", "--baselines", "false")
    raydeck(*flags, "--name", "a")
    header, *rows = (raydeck.folder / "runs/a/metrics.csv").read_text().splitlines()
    columns = dict(zip(header.split(","), rows[-1].split(","), strict=True))
    assert float(columns["train/grad_norm_max"]) >= float(columns["train/grad_norm"]) > 0
    assert float(columns["train/grad_norm/network"]) == pytest.approx(float(columns["train/grad_norm"]))
