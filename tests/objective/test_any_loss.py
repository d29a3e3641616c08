"""Losses as they are written for many tasks, against double backward of the same code."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from problems import assert_close, labels, normal
from torch import Tensor, nn
from torch.nn import functional

import hesspipe

Batch = dict[str, Any]


def mlp(*widths: int) -> nn.Module:
    torch.manual_seed(0)
    first, hidden, last = widths
    return nn.Sequential(nn.Linear(first, hidden), nn.Tanh(), nn.Linear(hidden, last)).double()


class Task(NamedTuple):
    """A model, batches with their denominators, and the loss; of outputs, where they are given."""

    model: nn.Module
    batches: list[Batch]
    loss: Callable[[Any, Batch], Tensor]
    denominator: Callable[[Batch], float]
    outputs: Callable[[nn.Module, Batch], Any] | None = None


def rows(name: str) -> Callable[[Batch], float]:
    return lambda batch: float(len(batch[name]))


def ctc(model: nn.Module, batch: Batch) -> Tensor:
    """The forward algorithm: the kernel of torch has no second derivative."""
    found = model(batch["x"]).log_softmax(2)
    total = found.new_zeros(())
    for sequence, target in zip(found, batch["y"], strict=True):
        path = torch.zeros(2 * len(target) + 1, dtype=torch.long)
        path[1::2] = target
        is_open = torch.zeros(len(path), dtype=torch.bool)
        is_open[2:] = path[2:] != path[:-2]
        nothing = torch.full((2,), -1e30, dtype=found.dtype)
        alpha = torch.cat([sequence[0, path[:2]], nothing.new_full((len(path) - 2,), -1e30)])
        for row in sequence[1:]:
            two = torch.cat([nothing, alpha[:-2]]).where(is_open, -1e30)
            ways = torch.stack([alpha, torch.cat([nothing[:1], alpha[:-1]]), two])
            alpha = ways.logsumexp(0) + row[path]
        total = total - alpha[-2:].logsumexp(0)
    return total / len(batch["y"])


def contrastive(outputs: Tensor, _: Batch) -> Tensor:
    """NT-Xent of SimCLR."""
    size, unit = len(outputs), functional.normalize(outputs, dim=1)
    similar = (2 * unit @ unit.mT).masked_fill(torch.eye(size, dtype=torch.bool), -math.inf)
    return functional.cross_entropy(similar, torch.arange(size).roll(size // 2))


class Policy(nn.Module):
    """A language model and a frozen copy, from which it is trained away."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trained = nn.Sequential(nn.Embedding(6, 4), nn.Tanh(), nn.Linear(4, 6))
        self.frozen = copy.deepcopy(self.trained).requires_grad_(False)
        with torch.no_grad():
            self.trained[2].weight.mul_(1.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Log-probability of each sequence, relative to that of the frozen copy."""
        sizes = [
            part(tokens[:, :-1]).log_softmax(2).gather(2, tokens[:, 1:, None]).sum((1, 2))
            for part in (self.trained, self.frozen)
        ]
        return sizes[0] - sizes[1]


def preference(outputs: Tensor, _: Batch) -> Tensor:
    """DPO."""
    return -functional.logsigmoid(outputs).mean()


class Autoencoder(nn.Module):
    """Encoder and decoder, which the loss calls."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encode, self.decode = nn.Linear(4, 6), nn.Linear(3, 4)


def evidence(model: Any, batch: Batch) -> Tensor:
    """VAE with noise of a generator of its own."""
    mean, spread = model.encode(batch["x"]).chunk(2, dim=1)
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(mean.shape, generator=draw, dtype=mean.dtype)
    code = torch.distributions.Normal(mean, spread.exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    logits = model.decode(code.loc + code.scale * noise)
    likelihood = torch.distributions.Bernoulli(logits=logits).log_prob((batch["x"] > 0).to(mean))
    divergence = torch.distributions.kl_divergence(code, prior)
    return (divergence.sum(1) - likelihood.sum(1)).mean()


class Denoising:
    """Noise prediction by an object that keeps the generator, and seeds it at every call."""

    def __init__(self) -> None:
        self.draw = torch.Generator()

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        self.draw.manual_seed(len(batch["x"]))
        noise = torch.randn(batch["x"].shape, generator=self.draw, dtype=torch.float64)
        time = torch.rand(len(noise), 1, generator=self.draw, dtype=torch.float64)
        noisy = time.cos() * batch["x"] + time.sin() * noise
        return functional.mse_loss(model(torch.cat([noisy, time], dim=1)), noise)


CRITIC = mlp(3, 4, 1)  # with gradients, which are constants here


def generator_loss(model: nn.Module, batch: Batch) -> Tensor:
    return functional.softplus(-CRITIC(model(batch["x"]))).mean()


def burgers(model: nn.Module, batch: Batch) -> Tensor:
    """A physics-informed network with second derivatives in its inputs."""
    x = batch["x"]
    u = model(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope[:, 0].sum(), x, create_graph=True)
    return (slope[:, 1] + u[:, 0] * slope[:, 0] - 0.1 * bend[:, 0]).square().mean()


def laplacian(model: nn.Module, batch: Batch) -> Tensor:
    """The same by transforms of torch inside of the loss."""
    second = torch.func.jacrev(torch.func.jacrev(lambda x: model(x.unsqueeze(0)).squeeze()))
    found = torch.func.vmap(second)(batch["x"].detach())
    return found.diagonal(dim1=1, dim2=2).sum(1).square().mean()


def score(model: nn.Module, batch: Batch) -> Tensor:
    """Sliced score matching of an energy."""
    x = batch["x"]
    (slope,) = torch.autograd.grad(-model(x).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad((slope * batch["v"]).sum(), x, create_graph=True)
    along = (slope * batch["v"]).sum(1)
    return ((bend * batch["v"]).sum(1) + along.square() / 2).mean()


def quantiles(outputs: Tensor, batch: Batch) -> Tensor:
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    error = batch["y"] - outputs.square()
    return torch.maximum(levels * error, (levels - 1) * error).mean()


class RandomField(nn.Module):
    """A conditional random field, with the forward algorithm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scores, self.moves = nn.Linear(4, 3), nn.Parameter(torch.randn(3, 3))

    def forward(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """Negative log-likelihood of a token, where the mask allows."""
        scores = self.scores(x)
        alpha, path = scores[:, 0], scores[:, 0].gather(1, y[:, :1]).squeeze(1)
        for at in range(1, x.shape[1]):
            kept = mask[:, at]
            ahead = (alpha.unsqueeze(2) + self.moves).logsumexp(1) + scores[:, at]
            alpha = torch.where(kept.unsqueeze(1), ahead, alpha)
            step = scores[:, at].gather(1, y[:, at : at + 1]).squeeze(1)
            path = path + kept * (step + self.moves[y[:, at - 1], y[:, at]])
        value: Tensor = (alpha.logsumexp(1) - path).sum() / mask.sum()
        return value


def adapted(model: nn.Module, batch: Batch) -> Tensor:
    """MAML: the loss after a step on other samples."""
    parameters = dict(model.named_parameters())
    inner = functional.mse_loss(model(batch["x"]), batch["y"])
    slopes = torch.autograd.grad(inner, list(parameters.values()), create_graph=True)
    moved = {
        name: value - 0.1 * slope
        for (name, value), slope in zip(parameters.items(), slopes, strict=True)
    }
    return functional.mse_loss(torch.func.functional_call(model, moved, (batch["v"],)), batch["y"])


def segmentation(outputs: Tensor, batch: Batch) -> Tensor:
    return functional.cross_entropy(outputs, batch["y"], ignore_index=255)


def survival(model: nn.Module, batch: Batch) -> Tensor:
    """Cox's partial likelihood, which couples the samples by their order."""
    risk = model(batch["x"]).squeeze(1)
    return -(risk - risk.logcumsumexp(0)).mean()


def plain_batches(*shape: int, **more: tuple[int, ...]) -> list[Batch]:
    found = []
    for size in (4, 3):
        batch = {"x": normal(size, *shape)}
        found.append(batch | {name: normal(size, *other) for name, other in more.items()})
    return found


def differentiated(batches: list[Batch]) -> list[Batch]:
    return [batch | {"x": batch["x"].requires_grad_()} for batch in batches]


def tokens(*shape: int, classes: int) -> Tensor:
    return labels(math.prod(shape), classes).view(shape)


def masked(size: int) -> Batch:
    mask = torch.ones(size, 5, dtype=torch.bool)
    mask[0, 3:] = False
    return {"x": normal(size, 5, 4), "y": tokens(size, 5, classes=3), "mask": mask}


def partly_ignored(size: int) -> Batch:
    targets = tokens(size, 3, 3, classes=2)
    targets[0, :2] = 255
    return {"x": normal(size, 2, 3, 3), "y": targets}


def of_inputs(model: nn.Module, batch: Batch) -> Any:
    return model(batch["x"])


def segments() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.GELU(), nn.Conv2d(3, 2, 1))


TASKS: dict[str, Callable[[], Task]] = {
    "CTC": lambda: Task(
        mlp(4, 5, 4),
        [{"x": normal(n, 7, 4), "y": 1 + tokens(n, 3, classes=3)} for n in (3, 2)],
        ctc,
        rows("y"),
    ),
    "contrastive": lambda: Task(
        mlp(4, 5, 3), [{"x": normal(n, 4)} for n in (6, 4)], contrastive, rows("x"), of_inputs
    ),
    "preferences": lambda: Task(
        Policy(), [{"x": tokens(n, 4, classes=6)} for n in (4, 3)], preference, rows("x"), of_inputs
    ),
    "autoencoder": lambda: Task(Autoencoder(), plain_batches(4), evidence, rows("x")),
    "denoising": lambda: Task(mlp(5, 5, 4), plain_batches(4), Denoising(), rows("x")),
    "generator": lambda: Task(mlp(2, 4, 3), plain_batches(2), generator_loss, rows("x")),
    "equation": lambda: Task(mlp(2, 5, 1), differentiated(plain_batches(2)), burgers, rows("x")),
    "laplacian": lambda: Task(mlp(2, 4, 1), plain_batches(2), laplacian, rows("x")),
    "score": lambda: Task(mlp(3, 5, 1), differentiated(plain_batches(3, v=(3,))), score, rows("x")),
    "quantiles": lambda: Task(
        mlp(4, 5, 3), plain_batches(4, y=(1,)), quantiles, rows("x"), of_inputs
    ),
    "random field": lambda: Task(
        RandomField(),
        list(map(masked, (3, 2))),
        lambda model, batch: model(**batch),
        lambda batch: float(batch["mask"].sum()),
    ),
    "adaptation": lambda: Task(
        mlp(3, 4, 1), plain_batches(3, v=(3,), y=(1,)), adapted, lambda batch: 1.0
    ),
    "segmentation": lambda: Task(
        segments(),
        list(map(partly_ignored, (2, 1))),
        segmentation,
        lambda batch: float((batch["y"] != 255).sum()),
        of_inputs,
    ),
    "survival": lambda: Task(mlp(4, 5, 1), plain_batches(4), survival, rows("x")),
}


def product(scalar: Tensor, points: list[Tensor], vector: Tensor) -> Tensor:
    """Multiply a second derivative by double backward."""
    slopes = torch.autograd.grad(scalar, points, create_graph=True, materialize_grads=True)
    along = torch.cat([slope.reshape(-1) for slope in slopes]) @ vector
    found = torch.autograd.grad(along, points, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in found])


def ggn_product(task: Task, points: list[Tensor], vector: Tensor, batch: Batch) -> Tensor:
    """Multiply J^T S J, with J v by double backward."""
    assert task.outputs is not None
    outputs = task.outputs(task.model, batch)
    pulled = torch.zeros_like(outputs, requires_grad=True)
    slopes = torch.autograd.grad(outputs, points, pulled, create_graph=True)
    along = torch.cat([slope.reshape(-1) for slope in slopes]) @ vector
    (change,) = torch.autograd.grad(along, pulled)
    leaf = outputs.detach().requires_grad_()
    curved = product(task.loss(leaf, batch), [leaf], change.reshape(-1)).view_as(leaf)
    found = torch.autograd.grad(task.outputs(task.model, batch), points, curved)
    return torch.cat([part.reshape(-1) for part in found])


@pytest.mark.parametrize("name", TASKS)
def test_products_of_any_loss_are_those_of_double_backward(name: str) -> None:
    task = TASKS[name]()
    task.model.double()
    objective = hesspipe.Objective.from_batches(
        task.model, task.loss, task.batches, outputs=task.outputs, denominator=task.denominator
    )
    points = [value for value in task.model.parameters() if value.requires_grad]
    vector = normal(objective.num_parameters)
    weights = [task.denominator(batch) for batch in task.batches]
    hessian, ggn = torch.zeros_like(vector), torch.zeros_like(vector)
    for batch, weight in zip(task.batches, weights, strict=True):
        share = weight / sum(weights)
        first = task.model if task.outputs is None else task.outputs(task.model, batch)
        hessian += share * product(task.loss(first, batch), points, vector)
        if task.outputs is not None:
            ggn += share * ggn_product(task, points, vector, batch)
    assert_close(hesspipe.HessianOperator(objective) @ vector, hessian, factor=100)
    if task.outputs is None:
        with pytest.raises(ValueError, match="defined by the outputs of the network"):
            hesspipe.GGNOperator(objective) @ vector
        return
    assert_close(hesspipe.GGNOperator(objective) @ vector, ggn, factor=100)
    assert_close(hesspipe.ResidualOperator(objective) @ vector, hessian - ggn, factor=1000)
    assert_close(hesspipe.ggn_matrix(objective) @ vector, ggn, factor=1000)


class Equilibrium(torch.autograd.Function):
    """The fixed point of z = tanh(W z + x), whose derivative is solved for outside of autograd."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor) -> Tensor:
        """Iterate."""
        z = torch.zeros_like(x)
        for _ in range(100):
            z = torch.tanh(z @ weight.mT + x)
        ctx.save_for_backward(weight, z)
        return z

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor]:
        """Solve for the first derivative."""
        weight, z = (saved.detach() for saved in ctx.saved_tensors)
        steep = 1 - z.square()
        matrix = torch.eye(len(weight)).to(z) - steep.unsqueeze(2) * weight
        found = torch.linalg.solve(matrix.mT, slopes[0]) * steep
        return found.mT @ z, found


class Implicit(nn.Module):
    """A deep equilibrium network; with `is_unrolled`, by plain iterations at its end."""

    def __init__(self, gradient: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight, self.inject = nn.Parameter(0.2 * torch.randn(4, 4)), nn.Linear(3, 4)
        self.gradient = gradient

    def forward(self, x: Tensor) -> Tensor:
        """Return the fixed point, with one of three derivatives."""
        if self.gradient == "implicit":
            return Equilibrium.apply(self.weight, self.inject(x))  # type: ignore[no-any-return]
        with torch.set_grad_enabled(self.gradient == "unrolled"):
            z = torch.zeros(len(x), 4, dtype=x.dtype)
            for _ in range(50):
                z = torch.tanh(z @ self.weight.mT + self.inject(x))
        return torch.tanh(z @ self.weight.mT + self.inject(x))


def squares(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch["x"]).square().mean()  # type: ignore[no-any-return]


def build(model: nn.Module, loss: Callable[[Any, Batch], Tensor] = squares) -> hesspipe.Objective:
    return hesspipe.Objective.from_batches(
        model, loss, plain_batches(3), num_samples=lambda batch: len(batch["x"])
    )


def test_unrolled_equilibrium_is_accepted() -> None:
    assert build(Implicit("unrolled")).num_parameters == 16 + 16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(build, Implicit("implicit")), "torch.autograd.Function Equilibrium"),
        (partial(build, Implicit("last step")), "gradient must be the derivative of the loss"),
        (
            partial(build, mlp(3, 4, 3), lambda model, batch: (
                -functional.cosine_similarity(model(batch["x"]), model(2 * batch["x"]).detach())
            ).mean()),
            "where something is detached",
        ),
        (
            partial(build, mlp(3, 4, 3), lambda model, batch: functional.gumbel_softmax(
                model(batch["x"])).square().mean()),
            "gumbel_softmax draws random numbers",
        ),
        (
            partial(build, mlp(3, 4, 3), lambda model, batch: torch.cdist(
                model(batch["x"]), batch["x"]).square().mean()),
            "_cdist_backward without a second derivative",
        ),
    ],
    ids=["implicit", "last step", "stopped gradient", "random", "cdist"],
)  # fmt: skip
def test_losses_without_a_hessian_are_refused(
    make: Callable[[], hesspipe.Objective], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()
