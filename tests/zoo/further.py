"""Further networks of torchvision, timm, transformers, peft and torch_geometric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from zoo.case import Case, Row, classifier, integers, numbers, own_loss, package
from zoo.language import (
    DECODER,
    ENCODER,
    FLOAT32,
    LABELS,
    MASK,
    SMALL,
    TEXT,
    TOKENS,
    adapted,
    build,
    causal,
    logits,
    own,
)
from zoo.vision import perturbed

SINGLE = torch.float32
TORCHVISION, TIMM, LANGUAGE = ["torchvision"], ["timm"], ["transformers"]
ADAPTED, GRAPHS = ["peft", "transformers"], ["torch_geometric"]


class Formula(TorchFunctionMode):
    """Weight normalization by its formula: torch's operation has a wrong second derivative."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._weight_norm:
            direction, length, dim = args
            others = [axis for axis in range(direction.ndim) if axis != dim % direction.ndim]
            return direction * length / direction.square().sum(others, keepdim=True).sqrt()
        return func(*args, **(kwargs or {}))


def by_formula(case: Case) -> Case:
    """Compare with the formula of weight normalization in plain torch."""
    make = case.outputs
    assert make is not None
    of_outputs = case.loss_of_outputs
    assert of_outputs is not None

    def outputs(model: nn.Module) -> Tensor:
        with Formula():
            return make(model)

    return replace(case, outputs=outputs, loss=lambda model: of_outputs(outputs(model)))


def _detector() -> Case:
    retina = package("torchvision.models.detection.retinanet")
    anchors = package("torchvision.models.detection.anchor_utils").AnchorGenerator
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU())
    backbone.out_channels = 8
    head = retina.RetinaNetHead(8, 2, 3, norm_layer=partial(nn.GroupNorm, 2))
    model = retina.RetinaNet(
        backbone, 3, min_size=32, max_size=32, head=head,
        anchor_generator=anchors(sizes=((8, 16),), aspect_ratios=((1.0,),)),
    )  # fmt: skip
    box = {"boxes": torch.tensor([[4.0, 4.0, 20.0, 22.0]]), "labels": torch.tensor([1])}
    images = [numbers(3, 32, 32, seed=seed).sigmoid() for seed in range(2)]

    def loss(network: nn.Module, batch: Any) -> Tensor:
        return torch.stack([*network(batch["images"], batch["targets"]).values()]).sum()

    return own_loss(model.train(), {"images": images, "targets": [box, box]}, loss)


def _segmenter() -> Case:
    module = package("torchvision.models.segmentation.deeplabv3")
    getter = package("torchvision.models._utils").IntermediateLayerGetter
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    head = nn.Sequential(module.ASPP(8, [2, 3], 8), nn.Conv2d(8, 3, 1))
    model = module.DeepLabV3(getter(body, {"2": "out"}), head).eval()
    read: Callable[[Any], Tensor] = lambda outputs: outputs["out"]  # noqa: E731
    return classifier(model, numbers(2, 3, 8, 8), integers(3, 2, 8, 8), read=read)


def _of_timm(module: str, name: str, size: int, **options: Any) -> Case:
    torch.manual_seed(0)
    model = getattr(package(f"timm.models.{module}"), name)(num_classes=3, **options)
    return classifier(perturbed(model).eval(), numbers(2, 3, size, size), integers(3, 2))


def _coatnet() -> Case:
    settings = package("timm.models.maxxvit").MaxxVitCfg(
        embed_dim=(8, 8, 32), depths=(1, 1, 1), block_type=("C", "C", "T"), stem_width=8
    )
    return _of_timm("maxxvit", "MaxxVit", 32, cfg=settings, img_size=32)


def _distilled(*, is_read: bool = True) -> Case:
    options = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    case = _of_timm("deit", "VisionTransformerDistilled", 16, **options)
    case.model.train()
    case.model.set_distilled_training(True)
    read: Callable[[Any], Tensor] = (lambda pair: pair[0] + pair[1]) if is_read else lambda o: o
    return classifier(case.model, numbers(2, 3, 16, 16), integers(3, 2), read=read)


def _for_sequences(
    name: str, sizes: dict[str, Any], inputs: Any = TEXT, dtype: torch.dtype = torch.float64
) -> Case:
    model = build(f"{name}ForSequenceClassification", f"{name}Config", num_labels=3, **sizes)
    return classifier(model, inputs, LABELS, read=logits, dtype=dtype)


def _deberta() -> Case:
    relative = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 4}
    return _for_sequences("DebertaV2", ENCODER | relative | {"pooler_hidden_size": 16})


def _xlnet() -> Case:
    sizes = {"vocab_size": 40, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 24}
    return _for_sequences("XLNet", sizes)


def _longformer(dtype: torch.dtype) -> Case:
    sizes = ENCODER | {"max_position_embeddings": 32, "attention_window": 4, "pad_token_id": 1}
    return _for_sequences("Longformer", sizes, dtype=dtype)


def _big_bird() -> Case:
    sizes = ENCODER | {"max_position_embeddings": 64, "block_size": 2, "num_random_blocks": 1}
    inputs = {"input_ids": integers(38, 3, 32) + 2}
    return _for_sequences("BigBird", sizes | {"attention_type": "block_sparse"}, inputs)


def _perceiver() -> Case:
    sizes = {
        "num_latents": 4, "d_latents": 8, "d_model": 8, "num_blocks": 1, "vocab_size": 40,
        "num_self_attends_per_block": 1, "num_self_attention_heads": 2,
        "num_cross_attention_heads": 2, "max_position_embeddings": 16,
    }  # fmt: skip
    return _for_sequences("Perceiver", sizes, {"inputs": TOKENS, "attention_mask": MASK})


def _hubert() -> Case:
    sizes = SMALL | {
        "intermediate_size": 24, "conv_dim": (8, 8), "conv_stride": (4, 2), "conv_kernel": (4, 2),
        "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4, "classifier_proj_size": 8,
        "num_conv_pos_embedding_groups": 2, "layerdrop": 0.0, "apply_spec_augment": False,
    }  # fmt: skip
    return by_formula(_for_sequences("Hubert", sizes, {"input_values": numbers(3, 160)}))


def _segformer() -> Case:
    model = build(
        "SegformerForSemanticSegmentation", "SegformerConfig", num_encoder_blocks=2, depths=[1, 1],
        sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[3, 3], strides=[2, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=8, num_labels=3,
        classifier_dropout_prob=0.0, drop_path_rate=0.0,
    )  # fmt: skip
    return classifier(
        model, {"pixel_values": numbers(2, 3, 16, 16)}, integers(3, 2, 8, 8), read=logits
    )


def _decoder(name: str, sizes: dict[str, Any], dtype: torch.dtype = SINGLE) -> Case:
    return own(build(f"{name}ForCausalLM", f"{name}Config", **sizes), dtype=dtype)


def _falcon() -> Case:
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return _decoder("Falcon", sizes | {"alibi": True})


def _gpt_neox() -> Case:
    sizes = {key: value for key, value in DECODER.items() if key != "num_key_value_heads"}
    return causal(build("GPTNeoXForCausalLM", "GPTNeoXConfig", **sizes))


def _qwen() -> Case:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
    sizes = DECODER | experts | {"shared_expert_intermediate_size": 12}
    return _decoder("Qwen2Moe", sizes | {"output_router_logits": True})


def _gemma() -> Case:
    return _decoder("Gemma2", DECODER | {"head_dim": 8, "sliding_window": 4})


def _time_series() -> Case:
    model = build(
        "PatchTSTForPrediction", "PatchTSTConfig", num_input_channels=2, context_length=16,
        patch_length=4, patch_stride=4, prediction_length=4, d_model=8, num_attention_heads=2,
        num_hidden_layers=1, ffn_dim=12, loss="mse",
    )  # fmt: skip
    return own(model, {"past_values": numbers(3, 16, 2), "future_values": numbers(3, 4, 2)})


def _siglip() -> Case:
    vision = SMALL | {"intermediate_size": 24, "image_size": 16, "patch_size": 8}
    model = build("SiglipModel", "SiglipConfig", text_config=ENCODER, vision_config=vision)
    return own(
        model, {"input_ids": TOKENS, "pixel_values": numbers(3, 3, 16, 16), "return_loss": True}
    )


def _reformer() -> Case:
    model = build(
        "ReformerModelWithLMHead", "ReformerConfig", vocab_size=40, hidden_size=16,
        attention_head_size=8, num_attention_heads=2, attn_layers=["local", "lsh"], is_decoder=True,
        axial_pos_shape=[2, 4], axial_pos_embds_dim=[8, 8], feed_forward_size=24, num_buckets=2,
        lsh_attn_chunk_length=4, local_attn_chunk_length=4, max_position_embeddings=8, hash_seed=0,
    )  # fmt: skip
    return own(model, {"input_ids": TOKENS[:, :4], "labels": TOKENS[:, :4]}, SINGLE)


def _low_rank(name: str = "LoraConfig", **options: Any) -> Case:
    return causal(adapted(name, target_modules=["c_attn"], fan_in_fan_out=True, **options))


def _prompt() -> Case:
    return own(adapted("PromptTuningConfig", num_virtual_tokens=3), dtype=SINGLE)


def _graph() -> Any:
    ends = [[0, 1, 1, 2, 2, 3, 3, 0, 4, 5], [1, 0, 2, 1, 3, 2, 0, 3, 5, 4]]
    data = package("torch_geometric.data").Data
    return data(
        x=numbers(6, 4), pos=numbers(6, 3, seed=3), edge_index=torch.tensor(ends), y=integers(3, 6)
    )


def _of_nodes(make: Callable[[Any], nn.Module], *fields: str) -> Case:
    torch.manual_seed(0)
    model = make(package("torch_geometric.nn"))

    def loss(network: nn.Module, graph: Any) -> Tensor:
        found = network(*(graph[field] for field in fields), graph.edge_index)
        return functional.cross_entropy(found, graph.y)

    return own_loss(model, _graph(), loss)


def _aggregation(layers: Any) -> nn.Module:
    degrees, scalers = torch.tensor([0, 2, 4]), ["identity", "amplification"]
    return layers.PNAConv(4, 3, ["mean", "max", "std"], scalers, degrees)


def _points(layers: Any) -> nn.Module:
    local = nn.Sequential(nn.Linear(7, 8), nn.Tanh(), nn.Linear(8, 3))
    return layers.PointNetConv(local, None)


def _kinds_of_nodes() -> Case:
    graph = package("torch_geometric.data").HeteroData()
    graph["user"].x, graph["item"].x, graph["user"].y = numbers(4, 3), numbers(3, 2), integers(3, 4)
    there = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 0]])
    graph["user", "buys", "item"].edge_index, graph["item", "of", "user"].edge_index = (
        there, there.flip(0)
    )  # fmt: skip
    layers = package("torch_geometric.nn")
    torch.manual_seed(0)
    model = layers.HeteroConv(
        {
            ("user", "buys", "item"): layers.SAGEConv((3, 2), 3),
            ("item", "of", "user"): layers.SAGEConv((2, 3), 3),
        }
    )

    def loss(network: nn.Module, batch: Any) -> Tensor:
        found = network(batch.x_dict, batch.edge_index_dict)["user"]
        return functional.cross_entropy(found, batch["user"].y)

    def double(tensor: Tensor) -> Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    case = own_loss(model, graph, loss)
    return replace(case, loss=lambda network: loss(network, graph.clone().apply(double)))


MINUTES = {"img_size": 16, "embed_dim": 8, "num_heads": (2, 2), "depths": (1, 1)}
ROWS = [
    Row("torchvision RetinaNet, its own losses in training mode", _detector, TORCHVISION, 1),
    Row("torchvision DeepLab v3", _segmenter, TORCHVISION),
    Row("timm CoAtNet", _coatnet, TIMM),
    Row(
        "timm Swin v2",
        lambda: _of_timm(
            "swin_transformer_v2", "SwinTransformerV2", 16, **MINUTES, patch_size=2, window_size=4
        ),
        TIMM,
    ),
    Row(
        "timm XCiT",
        lambda: _of_timm(
            "xcit",
            "Xcit",
            16,
            img_size=16,
            patch_size=8,
            embed_dim=16,
            depth=1,
            num_heads=2,
            cls_attn_layers=1,
        ),
        TIMM,
    ),
    Row("timm DeiT with two heads, training mode", _distilled, TIMM, 1),
    Row(
        "timm DeiT with two heads, a loss that does not choose",
        partial(_distilled, is_read=False),
        TIMM,
        refusal=r"loss_fn\(outputs\[0\], targets\)",
    ),
    Row("DeBERTa v2, relative positions", _deberta, LANGUAGE, 1),
    Row("XLNet, which returns states without gradients", _xlnet, LANGUAGE, 1),
    Row("Longformer in float64", lambda: _longformer(torch.float64), LANGUAGE, refusal=FLOAT32),
    Row("Longformer in float32", lambda: _longformer(SINGLE), LANGUAGE, 1),
    Row("BigBird, sparse attention", _big_bird, LANGUAGE, 1),
    Row("Perceiver", _perceiver, LANGUAGE, 1),
    Row("HuBERT, weight normalization by its formula", _hubert, LANGUAGE, 1),
    Row("SegFormer", _segformer, LANGUAGE, 1),
    Row("GPT-NeoX, logits: angles of positions in float32", _gpt_neox, LANGUAGE, 1),
    Row("Falcon in float32, biases of positions (ALiBi) in bfloat16", _falcon, LANGUAGE, 1),
    Row("Gemma 2 in float32, capped logits", _gemma, LANGUAGE, 1),
    Row("Qwen 2 in float32, mixture of experts with a loss of the router", _qwen, LANGUAGE, 1),
    Row("PatchTST, its own loss", _time_series, LANGUAGE, 1),
    Row("SigLIP, its own loss", _siglip, LANGUAGE, 1),
    Row("Reformer", _reformer, LANGUAGE, refusal=r"make sure to use `model\.train\(\)`"),
    Row(
        "DoRA on GPT-2, which detaches a norm",
        lambda: _low_rank(r=2, use_dora=True),
        ADAPTED,
        refusal="detached",
    ),
    Row("VeRA on GPT-2", lambda: _low_rank("VeraConfig", r=2), ADAPTED, 1),
    Row(
        "AdaLoRA on GPT-2",
        lambda: _low_rank("AdaLoraConfig", init_r=3, target_r=2, total_step=10),
        ADAPTED,
        1,
    ),
    Row(
        "LoRA on GPT-2, another module trained as well",
        lambda: _low_rank(r=2, modules_to_save=["ln_f"]),
        ADAPTED,
        1,
    ),
    Row("prompt tuning on GPT-2, its own loss in float32", _prompt, ADAPTED, 1),
    Row("aggregation by several means (PNA)", lambda: _of_nodes(_aggregation, "x"), GRAPHS, 2),
    Row("PointNet", lambda: _of_nodes(_points, "x", "pos"), GRAPHS, 2),
    Row("nodes of two kinds, a HeteroData object", _kinds_of_nodes, GRAPHS, 2),
]
