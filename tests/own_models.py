"""Classifiers as users bring them: tiny ones of our own and, from `transformers`, five families."""

import torch
from torch import nn

SIDE = 32


class Block(nn.Module):
    """A residual block that works in place where it can, as most do."""

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, feature):
        """Map `(N, C, H, W)` to the same."""
        update = self.second(self.norm(self.first(feature)).relu_())
        update += feature
        return update.relu_()


class Residual(nn.Module):
    """Residual blocks of three widths, for pictures of 32x32."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(inplace=True))
        self.body = nn.Sequential(
            Block(8), nn.Conv2d(8, 16, 3, 2, 1), Block(16), nn.Conv2d(16, 24, 3, 2, 1), Block(24)
        )
        self.dropout = nn.Dropout(0.5)
        self.classify = nn.Linear(24, num_classes)

    def forward(self, pictures):
        """Map `(N, 3, 32, 32)` to logits."""
        return self.classify(self.dropout(self.body(self.stem(pictures)).mean((2, 3))))


class Declared(Residual):
    """The same, with stages of its own and one exit of its own in the middle."""

    def __init__(self):
        super().__init__()
        self.early = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))

    def split_stages(self):
        """Give three stages; the second has an exit."""
        stages = (nn.Sequential(self.stem, self.body[0]), self.body[1:3], self.body[3:])
        last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), self.classify)
        return stages, (None, self.early, last)


def make_residual():
    torch.manual_seed(0)
    return Residual()


def make_declared():
    torch.manual_seed(0)
    return Declared()


def make_no_module():
    return "a model"


def make_family(name):
    """A classifier of 3 classes of one of `FAMILIES`, with random weights, and its side."""
    torch.manual_seed(0)
    return FAMILIES[name]()


def _resnet():
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24], depths=[1, 1, 1], layer_type="basic",
        num_labels=3,
    )  # fmt: skip
    return ResNetForImageClassification(config), 32


def _efficientnet():
    from transformers import EfficientNetConfig, EfficientNetForImageClassification

    config = EfficientNetConfig(
        image_size=32, width_coefficient=0.25, depth_coefficient=0.3, hidden_dim=320,
        in_channels=[32, 16, 24], out_channels=[16, 24, 40], kernel_sizes=[3, 3, 5],
        strides=[1, 2, 2], num_block_repeats=[1, 2, 2], expand_ratios=[1, 6, 6],
        depthwise_padding=[], num_labels=3,
    )  # fmt: skip
    return EfficientNetForImageClassification(config), 32


def _vit():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, num_labels=3,
    )  # fmt: skip
    return ViTForImageClassification(config), 32


def _swin():
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[2, 1], num_heads=[2, 2], window_size=4,
        num_labels=3,
    )  # fmt: skip
    return SwinForImageClassification(config), 32


def _mobilevit():
    from transformers import MobileViTConfig, MobileViTForImageClassification

    config = MobileViTConfig(
        image_size=64, hidden_sizes=[8, 12, 16], neck_hidden_sizes=[8, 8, 8, 12, 12, 16, 32],
        num_attention_heads=2, num_labels=3,
    )  # fmt: skip
    return MobileViTForImageClassification(config), 64


FAMILIES = {
    "residual": _resnet,
    "inverted residuals": _efficientnet,
    "vit": _vit,
    "swin": _swin,
    "mobilevit": _mobilevit,
}
