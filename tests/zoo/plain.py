"""Kinds of model that need torch only, and graph networks of torch_geometric."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset
from zoo.case import Case, Row, classifier, integers, numbers, own_loss, package

from hesspipe import Objective, ShardedObjective

X, Y = numbers(6, 4), integers(3, 6)


def _mlp(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    pairs = [(nn.Linear(a, b), nn.Tanh()) for a, b in pairwise(widths)]
    return nn.Sequential(*[layer for pair in pairs for layer in pair][:-1])


class Recurrent(nn.Module):
    """Classifies sequences by the last state."""

    def __init__(self, kind: type[nn.Module], lengths: Tensor | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.head, self.lengths = kind(4, 5, batch_first=True), nn.Linear(5, 3), lengths

    def forward(self, sequences: Tensor) -> Tensor:
        if self.lengths is None:
            return self.head(self.layer(sequences)[0][:, -1])
        packed = pack_padded_sequence(
            sequences, self.lengths, batch_first=True, enforce_sorted=False
        )
        return self.head(pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0].sum(1))


class PackedRecurrent(Recurrent):
    """Takes the lengths beside the sequences."""

    def forward(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(sequences, lengths, batch_first=True, enforce_sorted=False)
        return self.head(pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0].sum(1))


class UNet(nn.Module):
    """Two levels, with transposed convolution and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down, self.deep = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(6, 4, 2, stride=2), nn.Conv2d(8, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        first = self.down(images).tanh()
        deep = self.deep(functional.max_pool2d(first, 2)).tanh()
        return self.last(torch.cat([first, self.up(deep)], 1))


class Autoencoder(nn.Module):
    """A variational autoencoder that draws its noise, or gets it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = _mlp(4, 6, 4), _mlp(2, 6, 4)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=-1)
        noise = torch.randn_like(mean) if noise is None else noise
        return self.decoder(mean + (log_variance / 2).exp() * noise), mean, log_variance


def elbo(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The reconstruction error plus the divergence from the standard normal."""
    found, mean, log_variance = model(**batch)
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1).mean() / 2
    return functional.mse_loss(found, batch["x"]) + divergence


def contrastive(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """InfoNCE between two views of each sample, which couples all samples of a batch."""
    first, second = (functional.normalize(model(view), dim=-1) for view in batch)
    return functional.cross_entropy(first @ second.T / 0.5, torch.arange(len(first)))


def poisson(model: nn.Module, batch: Tensor) -> Tensor:
    """The residual of u'' = sin, from derivatives in the inputs."""
    x = batch.requires_grad_()
    u = model(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    return (bend - torch.sin(x)).square().mean()


def gradient_penalty(model: nn.Module, batch: Tensor) -> Tensor:
    """The critic of a Wasserstein network with slopes of norm 1."""
    x = batch.requires_grad_()
    scores = model(x)
    (slope,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return scores.mean() + (slope.norm(dim=1) - 1).square().mean()


class Hamiltonian(nn.Module):
    """Its outputs are derivatives of an energy in the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = _mlp(4, 6, 1)

    def forward(self, state: Tensor) -> Tensor:
        with torch.enable_grad():
            state = state.requires_grad_()
            (slope,) = torch.autograd.grad(self.energy(state).sum(), state, create_graph=True)
        position, momentum = slope.chunk(2, dim=1)
        return torch.cat([momentum, -position], 1)


class Agent(nn.Module):
    """A network of values with a target network, which does not vary."""

    def __init__(self) -> None:
        super().__init__()
        self.online = _mlp(4, 6, 3)
        self.target = copy.deepcopy(self.online).requires_grad_(False)


def temporal_difference(agent: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The loss of deep Q-learning."""
    value = agent.online(batch["state"]).gather(1, batch["action"][:, None])[:, 0]
    best = agent.target(batch["next"]).amax(1)
    return functional.smooth_l1_loss(value, batch["reward"] + 0.9 * best)


class Experts(nn.Module):
    """A mixture of experts: the best two of four."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = _mlp(4, 4), nn.ModuleList([_mlp(4, 5, 3) for _ in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        best, chosen = self.router(x).topk(2, dim=-1)
        weights = torch.zeros(len(x), 4, dtype=x.dtype).scatter(1, chosen, best.softmax(-1))
        return (torch.stack([e(x) for e in self.experts], -1) * weights[:, None]).sum(-1)


class Language(nn.Module):
    """A large vocabulary with tied embeddings."""

    def __init__(self, size: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.middle = nn.Embedding(size, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, size, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.middle(self.embed(tokens)).tanh()).transpose(1, 2)


class Checkpointed(nn.Module):
    """Its first part is computed again in the backward pass."""

    def __init__(self, *, use_reentrant: bool) -> None:
        super().__init__()
        self.first, self.last, self.form = _mlp(4, 5, 5), _mlp(5, 3), use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.last(checkpoint(self.first, x, use_reentrant=self.form))


class StraightThrough(nn.Module):
    """A rounding whose derivative is replaced by 1."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _mlp(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found = self.net(x)
        return found + (found.round() - found).detach()


def siamese(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """SimSiam: one side is constant on purpose."""
    first, second = map(model, batch)
    return -functional.cosine_similarity(first, second.detach()).mean()


def _scripted() -> Case:
    return classifier(torch.jit.trace(_mlp(4, 5, 3), X), X, Y)


def _quantized() -> Case:
    kinds = {nn.Linear}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still in use
        model = torch.ao.quantization.quantize_dynamic(_mlp(4, 5, 3), kinds, dtype=torch.qint8)
    return classifier(model, X, Y)


def _reentrant() -> Case:
    """Compared with the other form: this one drops gradients if no input requires one."""
    model = Checkpointed(use_reentrant=True)
    case = classifier(Checkpointed(use_reentrant=False), X, Y)
    return replace(case, objective=lambda: Objective(model, nn.CrossEntropyLoss(), (X, Y)))


def _batches() -> Case:
    case = classifier(_mlp(4, 5, 3), X, Y)
    loader = DataLoader(TensorDataset(X, Y), batch_size=4)
    return Case(
        case.model,
        case.loss,
        lambda: Objective(case.model, nn.CrossEntropyLoss(), loader),
        case.outputs,
        case.loss_of_outputs,
    )


def _dictionaries() -> Case:
    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return functional.cross_entropy(model(batch["x"]), batch["y"])

    model = _mlp(4, 5, 3)
    batches = [{"x": X[:4], "y": Y[:4]}, {"x": X[4:], "y": Y[4:]}]
    return Case(
        model,
        lambda network: functional.cross_entropy(network(X.double()), Y),
        lambda: Objective.from_batches(model, loss, batches, num_samples=lambda b: len(b["y"])),
    )


class GraphNetwork(nn.Module):
    """Two layers of torch_geometric, and scores of the nodes."""

    def __init__(self, layer: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = layer(4, 6), layer(6, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index).tanh(), edge_index)


def _edges() -> Tensor:
    ring = torch.arange(6)
    one_way = torch.stack([ring, ring.roll(1)])
    return torch.cat([one_way, one_way.flip(0)], 1)


def _nodes(layer: str, **options: Any) -> Case:
    kind = getattr(package("torch_geometric.nn"), layer)
    data = package("torch_geometric.data").Data(x=X, edge_index=_edges(), y=Y)
    model = GraphNetwork(lambda fan_in, fan_out: kind(fan_in, fan_out, **options))

    def loss(network: nn.Module, graph: Any) -> Tensor:
        return functional.cross_entropy(network(graph.x, graph.edge_index), graph.y)

    return own_loss(model.eval(), data, loss)


def _graphs() -> Case:
    library = package("torch_geometric.nn")
    loaders = package("torch_geometric.loader")
    data = package("torch_geometric.data")
    graphs = [
        data.Data(x=numbers(6, 4, seed=k), edge_index=_edges(), y=integers(3, 1, seed=k))
        for k in range(3)
    ]
    model = GraphNetwork(library.GraphConv)

    def loss(network: nn.Module, graph: Any) -> Tensor:
        nodes = network(graph.x, graph.edge_index)
        return functional.cross_entropy(library.global_mean_pool(nodes, graph.batch), graph.y)

    loader = loaders.DataLoader(graphs, batch_size=2)
    whole = data.Batch.from_data_list(graphs)
    return Case(
        model,
        lambda network: loss(network, whole.clone().apply(_doubled)),
        lambda: Objective.from_batches(model, loss, loader, num_samples="num_graphs"),
    )


def _doubled(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


class NoNeighbors(nn.Module):
    """All pairs of atoms, where torch_cluster is not installed."""

    def forward(self, positions: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        number = len(positions)
        pairs = torch.cartesian_prod(torch.arange(number), torch.arange(number))
        edges = pairs[pairs[:, 0] != pairs[:, 1]].T
        return edges, (positions[edges[0]] - positions[edges[1]]).norm(dim=-1)


def _schnet() -> Case:
    torch.manual_seed(0)
    model = package("torch_geometric.nn.models").SchNet(
        hidden_channels=6, num_filters=6, num_interactions=1, num_gaussians=5,
        interaction_graph=NoNeighbors(),
    ).eval()  # fmt: skip
    atoms = {"z": torch.tensor([1, 6, 8, 1]), "pos": numbers(4, 3), "y": numbers(1, 1)}

    def forces(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        positions = batch["pos"].requires_grad_()
        energy = network(batch["z"], positions)
        (slope,) = torch.autograd.grad(energy.sum(), positions, create_graph=True)
        return functional.mse_loss(energy, batch["y"]) + slope.square().mean()

    return own_loss(model, atoms, forces)


def _per_pixel() -> Case:
    targets = integers(3, 2, 8, 8)
    targets[:, :2] = -100
    return classifier(UNet(), numbers(2, 2, 8, 8), targets)


def _vae(*, with_noise: bool) -> Case:
    batch = {"x": X} | ({"noise": numbers(6, 2, seed=3)} if with_noise else {})
    return own_loss(Autoencoder(), batch, elbo)


def _q_learning() -> Case:
    batch = {
        "state": X, "next": numbers(6, 4, seed=5), "action": Y, "reward": numbers(6, seed=6),
    }  # fmt: skip
    return own_loss(Agent(), batch, temporal_difference)


def _sharded(build: Callable[[nn.Module, Any, Any], Any]) -> Case:
    """A model of FSDP2, in a group of one process: `tests/sharded` has several."""
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    case = classifier(_mlp(4, 5, 3).double(), X, Y)
    mesh = init_device_mesh("cpu", (1,))
    model = copy.deepcopy(case.model)
    for part in (model[0], model):
        fully_shard(part, mesh=mesh)
    return replace(case, objective=lambda: build(model, nn.CrossEntropyLoss(), (X, Y)))


GEOMETRIC = ["torch_geometric"]
ROWS = [
    Row("LSTM", lambda: classifier(Recurrent(nn.LSTM), numbers(6, 5, 4), Y)),
    Row("GRU", lambda: classifier(Recurrent(nn.GRU), numbers(6, 5, 4), Y)),
    Row(
        "LSTM on packed sequences",
        lambda: classifier(
            PackedRecurrent(nn.LSTM), (numbers(6, 5, 4), torch.tensor([5, 3, 1, 4, 2, 5])), Y
        ),
    ),
    Row("U-Net, loss per pixel, labels -100", _per_pixel),
    Row("VAE, noise in the data", lambda: _vae(with_noise=True), num_lines=1),
    Row("VAE, noise drawn inside", lambda: _vae(with_noise=False), refusal="random"),
    Row(
        "InfoNCE",
        lambda: own_loss(_mlp(4, 5, 3), (X, numbers(6, 4, seed=9)), contrastive),
    ),
    Row("physics-informed network", lambda: own_loss(_mlp(1, 8, 1), numbers(9, 1), poisson)),
    Row("gradient penalty", lambda: own_loss(_mlp(4, 6, 1), X, gradient_penalty)),
    Row(
        "Hamiltonian network",
        lambda: classifier(Hamiltonian(), X, numbers(6, 4, seed=4), loss_fn=functional.mse_loss),
    ),
    Row("deep Q-learning with a target network", _q_learning),
    Row("mixture of experts, best 2 of 4", lambda: classifier(Experts(), X, Y)),
    Row(
        "vocabulary of 3,000, tied embeddings",
        lambda: classifier(Language(3000), integers(3000, 2, 5), integers(3000, 2, 5, seed=2)),
    ),
    Row("DataParallel", lambda: classifier(nn.DataParallel(_mlp(4, 5, 3)), X, Y)),
    Row("FSDP2 (fully_shard), by ShardedObjective", lambda: _sharded(ShardedObjective)),
    Row("FSDP2 (fully_shard)", lambda: _sharded(Objective), refusal="ShardedObjective"),
    Row("torch.compile", lambda: classifier(torch.compile(_mlp(4, 5, 3), backend="eager"), X, Y)),
    Row("weights in bfloat16", lambda: classifier(_mlp(4, 5, 3).bfloat16(), X, Y)),
    Row("TorchScript", _scripted, refusal="TorchScript"),
    Row("quantized", _quantized, refusal="quantiz"),
    Row("straight-through rounding", lambda: classifier(StraightThrough(), X, Y), refusal="detach"),
    Row(
        "SimSiam",
        lambda: own_loss(_mlp(4, 5, 3), (X, numbers(6, 4, seed=9)), siamese),
        refusal="detach",
    ),
    Row(
        "checkpointing, not reentrant",
        lambda: classifier(Checkpointed(use_reentrant=False), X, Y),
    ),
    Row("checkpointing, reentrant", _reentrant),
    Row("DataLoader of pairs", _batches),
    Row("batches that are dictionaries", _dictionaries, num_lines=2),
    Row("graph convolution (GCN), a Data object", lambda: _nodes("GCNConv"), GEOMETRIC, 2),
    Row("graph attention (GAT)", lambda: _nodes("GATConv"), GEOMETRIC, 2),
    Row("graph isomorphism / SAGE", lambda: _nodes("SAGEConv"), GEOMETRIC, 2),
    Row("batches of graphs", _graphs, GEOMETRIC, 2),
    Row("SchNet, with forces in the loss", _schnet, GEOMETRIC, 2),
]
