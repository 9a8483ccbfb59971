"""A branch of fully connected layers per kind of label, and how its network learns (Sec. 3.4)."""

from __future__ import annotations

import torch
from torch import nn

from train.models.c3d import C3D

HIDDEN = 2048


class StatisticsNet(nn.Module):
    """C3D and one branch of two hidden layers and a linear output per kind of label.

    Parameters
    ----------
    outputs : dict of str to int
        Branch name -> number of labels: ``{"motion": 14, "appearance": 13}``.
    init : str
        ``release`` or ``kaiming``, see below.
    width : float
        Hidden units, as a share of the paper's 2048.

    Attributes
    ----------
    mean, std : (outputs,) float32 buffers
        What turns the linear output into label units; 0 and 1 unless targets are standardised.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        outputs: dict[str, int],
        *,
        backbone: C3D,
        init: str = "release",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        hidden = max(1, round(HIDDEN * width))
        self.backbone = backbone
        self.branches = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(backbone.features, hidden),
                    nn.ReLU(inplace=True),
                    nn.Linear(hidden, hidden),
                    nn.ReLU(inplace=True),
                    nn.Linear(hidden, count),
                )
                for name, count in outputs.items()
            }
        )
        self.register_buffer("mean", torch.zeros(sum(outputs.values())))
        self.register_buffer("std", torch.ones(sum(outputs.values())))
        self._initialise(init)

    def _initialise(self, init: str) -> None:
        """Release: what the authors' code does (the paper does not say). Kaiming: He et al. 2015.

        The release's hidden layers begin as biases of 1 with hardly any signal; they need its
        unscaled pixels and many steps. Kaiming keeps the signal's size from layer to layer.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                if init == "release":
                    nn.init.normal_(module.weight, std=0.01)
                else:
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                if init == "release":
                    nn.init.normal_(module.weight, std=0.005)
                else:
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.constant_(module.bias, 1.0 if init == "release" else 0.0)
        for branch in self.branches.values():
            *_, weight, bias = branch.parameters()
            nn.init.normal_(weight, std=0.01)
            nn.init.zeros_(bias)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, 16, 112, 112, 3) uint8 RGB -> (B, outputs) float32 in label units."""
        features = self.backbone(clips)
        # Hidden units begin near 1 with a signal of 1.5% on it, which bf16 would round away; the
        # branches are a thousandth of the work.
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            out = torch.cat([branch(features) for branch in self.branches.values()], dim=1)
            return out * self.std + self.mean


def make_optimizer(
    model: nn.Module, *, lr: float, momentum: float, weight_decay: float, bias_lr: float
) -> torch.optim.SGD:
    """SGD by the release's rules: decay on fully connected weights only, biases learn faster."""
    linear = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    placed = {id(p) for p in linear + biases}
    others = [p for p in model.parameters() if id(p) not in placed]
    groups = [
        {"params": linear, "weight_decay": weight_decay, "multiple": 1.0},
        {"params": biases, "weight_decay": 0.0, "multiple": bias_lr},
        {"params": others, "weight_decay": 0.0, "multiple": 1.0},
    ]
    # The fused one can leave a step out on the device, told by its `found_inf`, as a loss scaler
    # does; but then it would leave its first buffers as it found them.
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=True)
    if momentum:
        for parameter in model.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate, times each group's own multiple."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiple"]
