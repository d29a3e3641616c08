"""Networks of torchvision and timm, with few layers and channels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from zoo.case import Case, Row, classifier, integers, numbers, package

CLASSES = 3


def _images(model: nn.Module, size: int = 16, **options: Any) -> Case:
    return classifier(model.eval(), numbers(3, 3, size, size), integers(CLASSES, 3), **options)


def _models() -> Any:
    return package("torchvision.models")


def _resnet() -> nn.Module:
    basic = package("torchvision.models.resnet").BasicBlock
    model = _models().ResNet(basic, [1, 1, 1, 1], num_classes=CLASSES).requires_grad_(False)
    model.layer1.requires_grad_()
    model.fc.requires_grad_()
    return model


def _training() -> Case:
    return classifier(_resnet().train(), numbers(3, 3, 16, 16), integers(CLASSES, 3))


def _vit() -> nn.Module:
    return _models().VisionTransformer(16, 8, 2, 2, 16, 32, num_classes=CLASSES)


def perturbed(model: nn.Module) -> nn.Module:
    """Away from initial weights of zero, at which most of H vanishes."""
    for number, parameter in enumerate(model.parameters()):
        parameter.data += 0.02 * numbers(*parameter.shape, seed=number)
    return model


def _swin(drop: float) -> nn.Module:
    return _models().SwinTransformer(
        [2, 2], 8, [1, 1], [2, 2], [2, 2], num_classes=CLASSES, stochastic_depth_prob=drop
    )


def _convnext() -> nn.Module:
    module = package("torchvision.models.convnext")
    blocks = [module.CNBlockConfig(8, 16, 1), module.CNBlockConfig(16, None, 1)]
    return module.ConvNeXt(blocks, num_classes=CLASSES)


def _regnet() -> nn.Module:
    module = package("torchvision.models.regnet")
    sizes = module.BlockParams.from_init_params(4, 8, 8, 2, 8, se_ratio=0.25)
    return module.RegNet(sizes, num_classes=CLASSES)


def _densenet() -> nn.Module:
    return _models().DenseNet(4, (2, 2), 8, num_classes=CLASSES)


def _timm(name: str, **options: Any) -> nn.Module:
    return package("timm").create_model(name, pretrained=False, num_classes=CLASSES, **options)


def _mixer() -> nn.Module:
    module = package("timm.models.mlp_mixer")
    return module.MlpMixer(CLASSES, img_size=16, patch_size=8, num_blocks=2, embed_dim=12)


def _registers() -> nn.Module:
    module = package("timm.models.vision_transformer")
    return module.VisionTransformer(
        16,
        8,
        num_classes=CLASSES,
        embed_dim=16,
        depth=2,
        num_heads=2,
        reg_tokens=4,
        init_values=0.1,
    )


def _segmentation() -> Case:
    module = package("torchvision.models.segmentation")
    backbone = package("torchvision.models._utils").IntermediateLayerGetter(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()), {"2": "out"}
    )
    head = package("torchvision.models.segmentation.fcn").FCNHead(8, CLASSES)
    targets = integers(CLASSES, 2, 8, 8)
    targets[:, :2] = -100
    return classifier(
        module.FCN(backbone, head).eval(),
        numbers(2, 3, 8, 8),
        targets,
        read=lambda outputs: outputs["out"],
    )


def _of(make: Callable[[], nn.Module], size: int = 16) -> Callable[[], Case]:
    return lambda: _images(perturbed(make()), size)


ROWS = [
    Row("torchvision ResNet, first and last layer vary", _of(_resnet), ["torchvision"]),
    Row(
        "torchvision ResNet, training mode",
        _training,
        ["torchvision"],
        refusal=r"bn1 \(BatchNorm2d\) in training mode",
    ),
    Row("torchvision vision transformer", _of(_vit), ["torchvision"]),
    Row("torchvision Swin", _of(partial(_swin, 0.0)), ["torchvision"]),
    Row("torchvision Swin, evaluation mode of DropPath", _of(partial(_swin, 0.2)), ["torchvision"]),
    Row(
        "torchvision MobileNet v3 (hard sigmoid)",
        _of(lambda: _models().mobilenet_v3_small(num_classes=CLASSES), 32),
        ["torchvision"],
        refusal=r"features\.1\.block\.1\.scale_activation \(Hardsigmoid\)",
    ),
    Row(
        "torchvision MobileNet v2 (ReLU6)",
        _of(lambda: _models().mobilenet_v2(num_classes=CLASSES, width_mult=0.1)),
        ["torchvision"],
    ),
    Row("torchvision ConvNeXt", _of(_convnext), ["torchvision"]),
    Row("torchvision RegNet", _of(_regnet), ["torchvision"]),
    Row("torchvision DenseNet", _of(_densenet), ["torchvision"]),
    Row("torchvision FCN (a dictionary of outputs, labels -100)", _segmentation, ["torchvision"]),
    Row("timm ResNet", _of(lambda: _timm("test_resnet")), ["timm"]),
    Row("timm vision transformer", _of(lambda: _timm("test_vit", img_size=32), 32), ["timm"]),
    Row("timm ConvNeXt", _of(lambda: _timm("test_convnext"), 32), ["timm"]),
    Row("timm EfficientNet", _of(lambda: _timm("test_efficientnet"), 32), ["timm"]),
    Row("timm MLP mixer", _of(_mixer), ["timm"]),
    Row("timm vision transformer with registers", _of(_registers), ["timm"]),
]
