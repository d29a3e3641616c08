"""Compare products with H and G with curvlinops' on four kinds of network.

Claim: on an MLP, a convolutional network and one with batch normalization in evaluation mode,
products agree to a few eps, over ragged batches. On a small transformer those with G do; those
with H do not, because curvlinops differentiates LayerNorm forward over reverse, which torch 2.13
does wrong. Differences of the gradient, which need no second derivative, say who is right.
"""

from __future__ import annotations

import argparse
import platform
import warnings
from importlib.metadata import version
from pathlib import Path

import curvlinops
import torch
from torch import Tensor, nn

import hesspipe

_NUM_SAMPLES, _SPLITS = 50, [20, 20, 10]


class Transformer(nn.Module):
    """Token and position embeddings, two layers of attention, the mean's class."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.position = nn.Parameter(torch.randn(8, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of 4 classes."""
        scores: Tensor = self.head(self.encoder(self.embedding(tokens) + self.position).mean(1))
        return scores


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    """The models, in evaluation mode, and inputs for them."""
    torch.manual_seed(0)
    vectors, images = torch.randn(_NUM_SAMPLES, 12), torch.randn(_NUM_SAMPLES, 2, 8, 8)
    normalized = nn.Sequential(nn.Linear(12, 10), nn.BatchNorm1d(10), nn.Tanh(), nn.Linear(10, 4))
    normalized(vectors)  # running statistics
    return {
        "MLP": (nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4)), vectors),
        "convolutional": (
            nn.Sequential(
                nn.Conv2d(2, 4, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 4)
            ),
            images,
        ),
        "batch normalization": (normalized.eval(), vectors),
        "transformer": (Transformer().eval(), torch.randint(20, (_NUM_SAMPLES, 8))),
    }


def differences(model: nn.Module, inputs: Tensor) -> dict[str, float]:
    """Relative difference of products with a block of three vectors, for H and for G."""
    model = model.double()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    targets = torch.randint(4, (_NUM_SAMPLES,))
    batches = list(zip(inputs.split(_SPLITS), targets.split(_SPLITS), strict=True))
    loss_fn, parameters = nn.CrossEntropyLoss(), list(model.parameters())
    objective = hesspipe.Objective(model, loss_fn, batches)
    block = torch.randn(objective.num_parameters, 3, dtype=torch.float64)
    found = {}
    # curvlinops needs this said; hesspipe sees to it by itself.
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for name, own, peer in (
            ("H", hesspipe.HessianOperator, curvlinops.HessianLinearOperator),
            ("G", hesspipe.GGNOperator, curvlinops.GGNLinearOperator),
        ):
            expected = peer(model, loss_fn, parameters, batches) @ block
            product = own(objective) @ block
            found[name] = float((product - expected).norm() / expected.norm())
            if name == "H":
                central = central_differences(objective, block)
                found["own"] = float((product - central).norm() / central.norm())
                found["peer"] = float((expected - central).norm() / central.norm())
    return found


def central_differences(objective: hesspipe.Objective, block: Tensor) -> Tensor:
    """H times the columns, from gradients on both sides of theta."""
    step = 1e-6  # errors of about step^2 and eps / step

    def gradient(theta: Tensor) -> Tensor:
        theta = theta.clone().requires_grad_()
        return torch.autograd.grad(objective.loss(theta), theta)[0]

    columns = [
        gradient(objective.theta + step * column) - gradient(objective.theta - step * column)
        for column in block.T
    ]
    return torch.stack(columns, dim=1) / (2 * step)


def main(path_to_report: Path) -> None:
    """Compare on all networks and write the table."""
    warnings.filterwarnings("ignore")
    lines = [
        "| network | P | G: hesspipe, curvlinops | H: hesspipe, curvlinops | H: hesspipe, "
        "differences | H: curvlinops, differences |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, (model, inputs) in networks().items():
        size = sum(parameter.numel() for parameter in model.parameters())
        found = differences(model, inputs)
        numbers = " | ".join(f"{found[key]:.0e}" for key in ("G", "H", "own", "peer"))
        lines.append(f"| {name} | {size:,} | {numbers} |")
        print(lines[-1], flush=True)
    text = "\n".join(lines)
    path_to_report.write_text(
        f"""# Agreement with curvlinops

Relative differences of products with three vectors from each other, and from central differences \
of the gradient, which are good to about 1e-10; float64, softmax cross-entropy of \
{_NUM_SAMPLES} samples in batches of {_SPLITS}. Written by `benchmarks/agreement.py`.

{text}

curvlinops {version("curvlinops-for-pytorch")}, torch {torch.__version__}, \
Python {platform.python_version()}.
""",
        encoding="utf-8",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    main(parser.parse_args().output)
