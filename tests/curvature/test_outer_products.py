"""A^T A of weights whose gradient is a sum of outer products, against loops of plain gradients."""

from __future__ import annotations

import pytest
import torch
from problems import labels, normal
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

import hesspipe
from hesspipe.curvature import outer_products, sampled
from hesspipe.curvature.matrix import Matrix
from hesspipe.objective.objective import Objective


class Conv1D(nn.Module):
    """A layer of GPT-2: the weight is transposed, and multiplied by torch.addmm."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(num_inputs, num_outputs).float() / 2)
        self.bias = nn.Parameter(normal(num_outputs).float())

    def forward(self, inputs: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, inputs.view(-1, inputs.shape[-1]), self.weight)
        return flat.view(*inputs.shape[:-1], -1)


class Products(nn.Module):
    """Weights of products that are no modules, of which one is transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(normal(3, 5).float())
        self.second = nn.Parameter(normal(4, 5).float())

    def forward(self, inputs: Tensor) -> Tensor:
        return (torch.matmul(inputs, self.first).tanh() @ self.second.T).mean(1)


class Recurrent(nn.Module):
    """A weight that is used at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        state = inputs.new_zeros(len(inputs), 4)
        for step in inputs.unbind(1):
            state = self.cell(torch.cat([state, step], 1)).tanh()
        return self.head(state)


class Tied(nn.Module):
    """A weight that is an embedding, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.middle = nn.Embedding(5, 4), nn.Linear(4, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.middle(self.embedding(tokens).mean(1)).tanh()
        return functional.linear(hidden, self.embedding.weight)


class InPlace(nn.Module):
    """What a layer computes is overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.first(inputs).mul_(0.5).sigmoid_())


class OnSomeSamples(nn.Module):
    """A weight that only some samples pass, as of an expert, some of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.expert, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs).tanh()
        for limit in (-0.5, 0.5):
            chosen = (inputs[:, 0] > limit).nonzero().flatten()
            hidden = hidden.index_add(0, chosen, self.expert(hidden[chosen]).tanh())
        return self.head(hidden)


def images(*size: int) -> Tensor:
    return normal(4, *size)


def convolutional(layer: nn.Module, num_outputs: int) -> nn.Module:
    return nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(num_outputs, 3))


CASES = {
    "linear": (lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)), (3,), 2),
    "positions": (lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Flatten(),
                                        nn.Linear(10, 3)), (2, 3), 2),
    "convolution": (lambda: convolutional(nn.Conv2d(2, 3, (2, 3), (2, 1), (1, 0)), 18),
                    (2, 4, 4), 2),
    "dilated": (lambda: convolutional(nn.Conv2d(2, 3, 2, dilation=(2, 1)), 12), (2, 4, 3), 2),
    "same": (lambda: convolutional(nn.Conv2d(2, 3, (2, 3), padding="same"), 27), (2, 3, 3), 2),
    "groups": (lambda: convolutional(nn.Conv2d(4, 6, 2, groups=2), 24), (4, 3, 3), 2),
    "circular": (lambda: convolutional(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), 27),
                 (2, 3, 3), 2),
    "sequence": (lambda: convolutional(nn.Conv1d(2, 3, 2), 9), (2, 4), 2),
    "volume": (lambda: convolutional(nn.Conv3d(1, 2, 2), 16), (1, 3, 3, 3), 2),
    "Conv1D": (lambda: nn.Sequential(Conv1D(3, 5), nn.Tanh(), Conv1D(5, 3)), (3,), 2),
    "no modules": (Products, (4, 3), 2),
    "recurrent": (Recurrent, (3, 2), 2),
    "in place": (InPlace, (3,), 2),
    "on some samples": (OnSomeSamples, (3,), 3),
    "attention": (lambda: nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), (3, 4), 0),
}  # fmt: skip


# Of torch, for even kernels.
quiet = pytest.mark.filterwarnings("ignore:Using padding='same'")


def make(kind: str) -> Objective:
    build, size, _ = CASES[kind]
    torch.manual_seed(0)
    model = build().eval()
    inputs = images(*size)
    with torch.no_grad():
        outputs = model.double()(inputs)
    model = model.float()
    targets = labels(4, outputs.shape[1]) if outputs.ndim == 2 else normal(*outputs.shape)
    loss = nn.CrossEntropyLoss() if outputs.ndim == 2 else nn.MSELoss()
    return Objective(model, loss, [(inputs[:3], targets[:3]), (inputs[3:], targets[3:])])


def plain_rows(objective: Objective, directions: sampled.Directions) -> dict[str, Tensor]:
    """A^T by one plain gradient after the other, and by parameter."""
    rows = []
    theta = objective.theta.clone().requires_grad_()
    inputs = torch.cat([batch.inputs for batch in objective.batches])
    for number, values in enumerate(directions.values):
        outputs = objective.outputs(theta, inputs[number : number + 1])[0]
        for direction in values.T:
            rows.append(torch.autograd.grad(outputs, theta, direction, retain_graph=True)[0])
    sizes = [shape.numel() for shape in objective.shapes]
    parts = torch.stack(rows).split(sizes, dim=1)
    return dict(zip(objective.names, parts, strict=True))


def weights_of(objective: Objective, num_directions: int) -> list[outer_products.Weight]:
    return outer_products.find_weights(objective, num_directions, 2**30)


@quiet
@pytest.mark.parametrize("has_rows", [False, True])
@pytest.mark.parametrize("kind", CASES)
def test_add_gram_is_that_of_plain_gradients(kind: str, has_rows: bool) -> None:
    objective = make(kind)
    directions = sampled.find_directions(objective, Matrix.GGN)
    found = weights_of(objective, directions.values.shape[2])
    assert len(found) >= CASES[kind][2]
    rows = plain_rows(objective, directions)
    for weight in found:
        if kind == "groups" and weight.name == "0.weight" and not has_rows:
            assert weight.has_rows  # the only way
            continue
        way = outer_products.Weight(weight.name, has_rows, 0)
        total = objective.theta.new_zeros(directions.num_columns, directions.num_columns)
        with tqdm(disable=True) as bar:
            outer_products.add_gram(total, objective, directions, [way], bar)
        expected = rows[weight.name] @ rows[weight.name].T
        error = (total.tril() - expected.tril()).abs().max()
        assert error <= 1e-14 * expected.abs().max() * len(total)


@quiet
@pytest.mark.parametrize("kind", CASES)
def test_spectrum_by_outer_products_is_that_of_columns(kind: str) -> None:
    objective = make(kind)
    directions = sampled.find_directions(objective, Matrix.GGN)
    rows = torch.cat(list(plain_rows(objective, directions).values()), dim=1)
    gram = sampled.gram_of_jacobians(objective, directions)
    assert (gram - rows @ rows.T).abs().max() <= 1e-14 * gram.abs().max() * len(gram)
    found = hesspipe.spectrum(objective, "ggn", "jacobians").eigenvalues
    expected = torch.linalg.eigvalsh(hesspipe.ggn_matrix(objective, "columns"))
    assert (found - expected).abs().max() <= 1e-14 * len(found) * expected[-1]


def test_find_weights_leaves_out_what_is_used_in_another_way() -> None:
    torch.manual_seed(0)
    data = labels(8, 5).view(4, 2), labels(4, 5)
    objective = Objective(Tied(), nn.CrossEntropyLoss(), data)
    assert [weight.name for weight in weights_of(objective, 4)] == ["middle.weight"]


def test_spectrum_is_right_where_the_first_sample_does_not_show_a_use() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            penalty = self.layer.weight.square().sum() * (inputs[:, :1] > 10)
            outputs: Tensor = self.layer(inputs) + penalty * inputs.flip(1)
            return outputs

    inputs = normal(3, 3)
    inputs[2, 0] = 11.0
    objective = Objective(Late(), nn.CrossEntropyLoss(), (inputs, labels(3, 3)))
    assert [weight.name for weight in weights_of(objective, 2)] == ["layer.weight"]
    found = hesspipe.spectrum(objective, "ggn", "jacobians").eigenvalues
    expected = torch.linalg.eigvalsh(hesspipe.ggn_matrix(objective, "columns"))
    assert (found - expected).abs().max() <= 1e-14 * len(found) * expected[-1]


def test_find_weights_takes_the_cheaper_way_and_keeps_the_budget() -> None:
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(72, 3))
    objective = Objective(wide, nn.CrossEntropyLoss(), (images(1, 6, 6), labels(4, 3)))
    few, many = weights_of(objective, 2)
    assert (few.name, few.has_rows, few.num_bytes) == ("0.weight", True, 4 * 2 * 18 * 8)
    assert (many.name, many.has_rows, many.num_bytes) == ("3.weight", False, 4 * (72 + 2 * 3) * 8)
    assert outer_products.find_weights(objective, 2, many.num_bytes - 1) == [few]


def test_jacobians_of_a_large_weight_are_never_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(16, 2_000),
                          nn.Tanh(), nn.Linear(2_000, 2))  # fmt: skip
    objective = Objective(model, nn.CrossEntropyLoss(), (images(1, 3, 3), labels(4, 2)))
    monkeypatch.setattr(sampled, "_BLOCK_BYTES", 2**20 // 8)
    directions = sampled.find_directions(objective, Matrix.GGN)
    held = []
    add = outer_products.add_squares_of_rows
    for module in (sampled, outer_products):
        monkeypatch.setattr(
            module, "add_squares_of_rows", lambda *args: held.append(args[1].numel()) or add(*args)
        )
    gram = sampled.gram_of_jacobians(objective, directions)
    assert max(held) * 8 <= 2**20 // 8 < 16 * 2_000 * 8
    rows = torch.cat(list(plain_rows(objective, directions).values()), dim=1)
    assert (gram - rows @ rows.T).abs().max() <= 1e-13 * gram.abs().max()
