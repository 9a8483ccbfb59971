"""What stands behind a backbone: branches that regress labels (Sec. 3.4), layers that tell classes.

Hidden layers are those that the backbone asks for: two of 2048 behind C3D, none behind the pooled
features of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from train.models.backbone import Backbone


class StatisticsNet(nn.Module):
    """A backbone and one branch of hidden layers and a linear output per kind of label.

    Parameters
    ----------
    outputs : dict of str to int
        Branch name -> number of outputs: ``{"motion": 14, "appearance": 13}`` by regression.
    init : str
        See `initialise`.
    width : float
        Hidden units, as a share of the paper's.

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
        backbone: Backbone,
        init: str = "release",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        sizes = [backbone.features, *hidden_sizes(backbone, width)]
        self.backbone = backbone
        branches, ends = {}, []
        for name, count in outputs.items():
            hidden = _hidden(sizes)
            ends.append(nn.Linear(sizes[-1], count))
            branches[name] = nn.Sequential(*hidden, ends[-1])
        self.branches = nn.ModuleDict(branches)
        self.register_buffer("mean", torch.zeros(sum(outputs.values())))
        self.register_buffer("std", torch.ones(sum(outputs.values())))
        initialise(self, init, outputs=ends)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, 16, 112, 112, 3) uint8 RGB -> (B, outputs) float32 in label units."""
        features = self.backbone(clips)
        # Hidden units begin near 1 with a signal of 1.5% on it, which bf16 would round away; the
        # branches are a thousandth of the work.
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            out = torch.cat([branch(features) for branch in self.branches.values()], dim=1)
            return out * self.std + self.mean


class ClassifierNet(nn.Module):
    """A backbone and fully connected layers that tell classes: fc6, fc7 and an output (Sec. 4.1).

    Parameters
    ----------
    classes : int
    backbone : Backbone
    init : str
        See `initialise`.
    width : float
        Hidden units, as a share of the paper's.
    dropout : float
        After each hidden layer, or before the output where there is none.
    freeze : bool
        Only a linear output on pool5 learns. The backbone stays as it is, in inference mode, and
        its features are standardised by batch norm without weights, since their scale is a matter
        of the backbone's alone.
    """

    def __init__(
        self,
        classes: int,
        *,
        backbone: Backbone,
        init: str = "release",
        width: float = 1.0,
        dropout: float = 0.5,
        freeze: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.freeze = backbone, freeze
        hidden = [] if freeze else hidden_sizes(backbone, width)
        sizes = [backbone.features, *hidden]
        if freeze:
            start: list[nn.Module] = [nn.BatchNorm1d(backbone.features, affine=False)]
        else:
            start = _hidden(sizes, dropout=dropout) or [nn.Dropout(dropout)]
        output = nn.Linear(sizes[-1], classes)
        self.head = nn.Sequential(*start, output)
        initialise(self, init, outputs=[output])
        if freeze:
            self.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> ClassifierNet:
        """Change to training or inference; a frozen backbone stays in inference."""
        super().train(mode)
        if self.freeze:
            self.backbone.eval()
        return self

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, 16, 112, 112, 3) uint8 RGB -> (B, classes) float32 logits."""
        features = self.backbone(clips)
        with torch.autocast(features.device.type, enabled=False):
            logits: torch.Tensor = self.head(features.float())
            return logits

    def stages(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the backbone's stages, fc6 and fc7 after their ReLU if it has them, logits."""
        stages = self.backbone.stages(clips)
        values, names = stages["pool5"].float(), iter(("fc6", "fc7"))
        with torch.autocast(values.device.type, enabled=False):
            for layer in self.head:
                values = layer(values)
                if isinstance(layer, nn.ReLU):
                    stages[next(names)] = values
        return {**stages, "logits": values}


def hidden_sizes(backbone: Backbone, width: float) -> list[int]:
    """Units of the hidden layers behind a backbone, as a share of what it asks for."""
    return [max(1, round(units * width)) for units in backbone.hidden]


def _hidden(sizes: list[int], *, dropout: float | None = None) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
        layers += [] if dropout is None else [nn.Dropout(dropout)]
    return layers


def initialise(network: nn.Module, how: str, *, outputs: Sequence[nn.Linear]) -> None:
    """Draw the initial weights of a network, outputs last.

    ``release`` is what the authors' code does (the paper does not say): its hidden layers begin as
    biases of 1 with hardly any signal, and need its unscaled pixels and many steps. ``c3d`` is the
    same with biases of 1 in all convolutions but the first, as Tran et al. train on UCF101.
    ``kaiming`` (He et al. 2015) keeps the signal's size from layer to layer.
    """
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv3d)]
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            _draw(module, how, std=0.01)
            if module.bias is not None:
                later = how == "c3d" and module is not convolutions[0]
                nn.init.constant_(module.bias, 1.0 if later else 0.0)
        elif isinstance(module, nn.Linear):
            _draw(module, how, std=0.005)
            nn.init.constant_(module.bias, 0.0 if how == "kaiming" else 1.0)
    for output in outputs:
        nn.init.normal_(output.weight, std=0.01)
        nn.init.zeros_(output.bias)


def _draw(module: nn.Conv3d | nn.Linear, how: str, *, std: float) -> None:
    if how == "kaiming":
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    else:
        nn.init.normal_(module.weight, std=std)


def make_optimizer(
    model: nn.Module,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    bias_lr: float,
    decay: str = "linear",
) -> torch.optim.SGD:
    """SGD by the release's rules: decay on fully connected weights only, biases learn faster.

    With `decay` ``all``, weights of convolutions decay too. What is frozen is left out.
    """
    kinds = (nn.Linear, nn.Conv3d) if decay == "all" else nn.Linear
    learnt = {name: p for name, p in model.named_parameters() if p.requires_grad}
    decayed = [m.weight for m in model.modules() if isinstance(m, kinds) and m.weight.requires_grad]
    biases = [p for name, p in learnt.items() if name.endswith("bias")]
    placed = {id(p) for p in decayed + biases}
    others = [p for p in learnt.values() if id(p) not in placed]
    groups = [
        {"params": decayed, "weight_decay": weight_decay, "multiple": 1.0},
        {"params": biases, "weight_decay": 0.0, "multiple": bias_lr},
        {"params": others, "weight_decay": 0.0, "multiple": 1.0},
    ]
    # The fused one can leave a step out on the device, told by its `found_inf`, as a loss scaler
    # does; but then it would leave its first buffers as it found them.
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=True)
    if momentum:
        for parameter in learnt.values():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate, times each group's own multiple."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiple"]
