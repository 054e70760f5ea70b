"""LeNet-5 (LeCun et al., Proceedings of the IEEE, 1998) in PyTorch, for images of 8 x 8 or 28 x 28 pixels."""

import torch
from torch import nn


class LeNet(nn.Module):
    def __init__(self, side: int) -> None:
        super().__init__()
        window = 5 if side >= 28 else 3
        left = (side // 2 - (window - 1 if side >= 28 else 0)) // 2  # pixels a side after both poolings
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, window, padding=window // 2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, window, padding=0 if side >= 28 else 1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * left * left, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, 10),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images))
