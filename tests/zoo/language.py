"""Networks of transformers and peft, of the real classes in small configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from zoo.case import Case, Row, classifier, integers, numbers, own_loss, package

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
ENCODER = SMALL | {"intermediate_size": 24, "vocab_size": 40, "max_position_embeddings": 16}
DECODER = ENCODER | {"num_key_value_heads": 1}
GPT = {"vocab_size": 40, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
TOKENS, LABELS = integers(38, 3, 7) + 2, integers(3, 3)
MASK = torch.ones(3, 7, dtype=torch.long)
MASK[0, 5:] = 0
IGNORED = TOKENS.masked_fill(MASK == 0, -100)
PADDED = {"input_ids": TOKENS.masked_fill(MASK == 0, 1), "labels": IGNORED}  # not masked
TEXT = {"input_ids": TOKENS, "attention_mask": MASK}
SEED = 0


def build(name: str, config: str, **options: Any) -> nn.Module:
    """Make a model of a real class with random weights, in evaluation mode."""
    library = package("transformers")
    torch.manual_seed(SEED)
    return getattr(library, name)(getattr(library, config)(**options)).eval()


def logits(outputs: Any) -> Tensor:
    """Take the logits from an output object."""
    return outputs.logits


def next_tokens(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each next token; labels of -100 do not count."""
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())


def causal(model: nn.Module, **options: Any) -> Case:
    """A language model with a loss of its logits."""
    return classifier(model, TEXT, IGNORED, read=logits, loss_fn=next_tokens, **options)


def _gpt2() -> nn.Module:
    return build("GPT2LMHeadModel", "GPT2Config", **GPT, bos_token_id=0, eos_token_id=0)


def _classifier(name: str, config: str, **options: Any) -> Case:
    model = build(name, config, num_labels=3, **options)
    return classifier(model, TEXT, LABELS, read=logits)


def without_padding(model: nn.Module) -> nn.Module:
    """Let the lookup of padding have an ordinary gradient."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.padding_idx = None
    return model


def own(
    model: nn.Module, batch: dict[str, Any] | None = None, dtype: torch.dtype = torch.float64
) -> Case:
    """A model that computes its own loss."""
    return own_loss(model, TEXT | {"labels": IGNORED} if batch is None else batch, dtype=dtype)


def _llama() -> nn.Module:
    return build("LlamaForCausalLM", "LlamaConfig", **DECODER)


def _t5() -> nn.Module:
    return build(
        "T5ForConditionalGeneration", "T5Config", vocab_size=40, d_model=16, d_kv=8, d_ff=24,
        num_layers=1, num_heads=2, decoder_start_token_id=0, dropout_rate=0.0,
    )  # fmt: skip


def _mixtral() -> nn.Module:
    return build(
        "MixtralForCausalLM", "MixtralConfig", **DECODER, num_local_experts=4, num_experts_per_tok=2
    )


def _vision(name: str, config: str, **options: Any) -> Case:
    model = build(name, config, image_size=16, **options, num_labels=3)
    return classifier(model, {"pixel_values": numbers(3, 3, 16, 16)}, LABELS, read=logits)


def _vit() -> Case:
    sizes = SMALL | {"intermediate_size": 24, "patch_size": 8}
    return _vision("ViTForImageClassification", "ViTConfig", **sizes)


def _swin() -> Case:
    return _vision(
        "SwinForImageClassification", "SwinConfig", patch_size=2, embed_dim=8, depths=[1, 1],
        num_heads=[2, 2], window_size=2,
    )  # fmt: skip


def _tokens_of_words() -> Case:
    model = build(
        "DistilBertForTokenClassification", "DistilBertConfig", vocab_size=40, dim=16, n_layers=2,
        n_heads=2, hidden_dim=24, max_position_embeddings=16, num_labels=3,
    )  # fmt: skip
    labels = integers(3, 3, 7).masked_fill(MASK == 0, -100)
    return own(model, TEXT | {"labels": labels})


TRANSLATOR = {
    "vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24, "max_position_embeddings": 16, "pad_token_id": 1,
}  # fmt: skip


def _bart() -> nn.Module:
    return build("BartForConditionalGeneration", "BartConfig", **TRANSLATOR)


def _marian() -> nn.Module:
    return build("MarianMTModel", "MarianConfig", **TRANSLATOR, decoder_start_token_id=1)


def _mbart() -> nn.Module:
    options = TRANSLATOR | {"tie_word_embeddings": False}
    return build("MBartForConditionalGeneration", "MBartConfig", **options)


def _whisper() -> Case:
    model = build(
        "WhisperForConditionalGeneration", "WhisperConfig", vocab_size=40, d_model=16,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, num_mel_bins=8, max_source_positions=10,
        max_target_positions=16, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        decoder_start_token_id=1,
    )  # fmt: skip
    batch = {"input_features": numbers(2, 8, 20), "labels": TOKENS[:2]}
    return own(model, batch)


def _clip(dtype: torch.dtype = torch.float64) -> Case:
    text = ENCODER | {"bos_token_id": 0, "eos_token_id": 39}
    vision = SMALL | {"intermediate_size": 24, "image_size": 16, "patch_size": 8}
    model = build(
        "CLIPModel", "CLIPConfig", text_config=text, vision_config=vision, projection_dim=8
    )
    batch = TEXT | {"pixel_values": numbers(3, 3, 16, 16), "return_loss": True}
    return own(model, batch, dtype)


def _masked_autoencoder() -> Case:
    model = build(
        "ViTMAEForPreTraining", "ViTMAEConfig", **SMALL, intermediate_size=24, image_size=16,
        patch_size=4, decoder_hidden_size=8, decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2, decoder_intermediate_size=12,
    )  # fmt: skip
    noise = torch.rand(2, 16, generator=torch.Generator().manual_seed(0))
    return own(model, {"pixel_values": numbers(2, 3, 16, 16), "noise": noise})


def _masked_autoencoder_drawing() -> Case:
    case = _masked_autoencoder()
    return own(case.model, {"pixel_values": numbers(2, 3, 16, 16)})


def _mamba(dtype: torch.dtype = torch.float64) -> Case:
    model = build(
        "MambaForCausalLM", "MambaConfig", vocab_size=40, hidden_size=8, state_size=4,
        num_hidden_layers=1, time_step_rank=2, use_mambapy=False,
    )  # fmt: skip
    return own(model, {"input_ids": TOKENS, "labels": TOKENS}, dtype)


def _detr() -> Case:
    backbone = package("transformers").ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic",
        out_features=["stage2"],
    )  # fmt: skip
    model = build(
        "DetrForObjectDetection", "DetrConfig", use_timm_backbone=False, backbone=None,
        backbone_config=backbone, use_pretrained_backbone=False, d_model=16, encoder_layers=1,
        decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24,
        decoder_ffn_dim=24, num_queries=4, num_labels=3,
    )  # fmt: skip
    boxes = torch.tensor([[0.4, 0.5, 0.3, 0.2]])
    labels = [{"class_labels": torch.tensor([1]), "boxes": boxes} for _ in range(2)]
    return own(model, {"pixel_values": numbers(2, 3, 32, 32), "labels": labels}, torch.float32)


def _wav2vec() -> Case:
    model = build(
        "Wav2Vec2ForCTC", "Wav2Vec2Config", **SMALL, intermediate_size=24, vocab_size=12,
        conv_dim=(8, 8), conv_stride=(4, 2), conv_kernel=(4, 2), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, ctc_loss_reduction="mean",
        layerdrop=0.0, apply_spec_augment=False,
    )  # fmt: skip
    batch = {"input_values": numbers(2, 160), "labels": integers(10, 2, 4) + 1}
    return own(model, batch, torch.float32)


def adapted(name: str, **options: Any) -> nn.Module:
    """GPT-2 with adapters of peft, away from initial values of zero."""
    library = package("peft")
    torch.manual_seed(SEED)
    config = getattr(library, name)(task_type="CAUSAL_LM", **options)
    model = library.get_peft_model(_gpt2(), config).eval()
    for number, parameter in enumerate(p for p in model.parameters() if p.requires_grad):
        parameter.data += 0.1 * numbers(*parameter.shape, seed=number)
    return model


def _lora() -> Case:
    return causal(adapted("LoraConfig", r=2, target_modules=["c_attn"], fan_in_fan_out=True))


def _ia3() -> Case:
    options = {"target_modules": ["c_attn", "mlp.c_proj"], "feedforward_modules": ["mlp.c_proj"]}
    return causal(adapted("IA3Config", **options, fan_in_fan_out=True))


def _prefix() -> Case:
    return causal(adapted("PrefixTuningConfig", num_virtual_tokens=3))


def _checkpointed() -> Case:
    model = _llama()
    model.gradient_checkpointing_enable()
    return own(model.train(), dtype=torch.float32)


def _row(
    name: str, make: Callable[[], Case], num_lines: int = 0, refusal: str | None = None
) -> Row:
    return Row(name, make, ["transformers"], num_lines, refusal)


FLOAT32 = r"pass dtype=torch\.float32"
ROWS = [
    _row("GPT-2, tied embeddings, labels -100, logits", lambda: causal(_gpt2()), 1),
    _row("GPT-2, its own loss in float64", lambda: own(_gpt2()), 0, f"GPT2LMHeadModel.*{FLOAT32}"),
    _row("GPT-2, its own loss in float32", lambda: own(_gpt2(), dtype=torch.float32), 1),
    _row(
        "BERT for sequences",
        lambda: _classifier("BertForSequenceClassification", "BertConfig", **ENCODER),
        1,
    ),
    _row("vision transformer", _vit, 1),
    _row("Swin", _swin, 1),
    _row("DistilBERT for tokens, its own loss", _tokens_of_words, 1),
    _row(
        "Llama in float64",
        lambda: own(_llama()),
        0,
        rf"model\.layers\.0\.input_layernorm \(LlamaRMSNorm\).*{FLOAT32}",
    ),
    _row("Llama in float32", lambda: own(_llama(), dtype=torch.float32), 1),
    _row(
        "T5 in float64",
        lambda: own(_t5()),
        0,
        rf"encoder\.block\.0\.layer\.0\.layer_norm \(T5LayerNorm\).*{FLOAT32}",
    ),
    _row("T5 in float32", lambda: own(_t5(), dtype=torch.float32), 1),
    _row(
        "Mixtral in float64",
        lambda: own(_mixtral()),
        0,
        rf"model\.layers\.0\.mlp\.experts.*{FLOAT32}",
    ),
    _row("Mixtral in float32", lambda: own(_mixtral(), dtype=torch.float32), 1),
    _row("BART, its own loss", lambda: own(_bart(), PADDED), 1),
    _row("BART without padding_idx, its own loss", lambda: own(without_padding(_bart())), 2),
    _row("Whisper, its own loss", _whisper, 1),
    _row("Marian, its own loss", lambda: own(_marian(), PADDED), 1),
    _row("mBART without tied embeddings, its own loss", lambda: own(_mbart(), PADDED), 1),
    _row("CLIP, its own loss", _clip, 1),
    _row("masked autoencoder, noise in the data", _masked_autoencoder, 1),
    _row("masked autoencoder, noise drawn inside", _masked_autoencoder_drawing, 0, "random"),
    _row("Mamba in float64", _mamba, 0, FLOAT32),
    _row("Mamba in float32", lambda: _mamba(torch.float32), 1),
    _row("DETR, its own loss with a matching", _detr, 1),
    _row("wav2vec 2.0, its own loss (CTC)", _wav2vec, 0, "ctc_loss"),
    _row("Llama with gradient checkpointing", _checkpointed, 1),
    Row("LoRA on GPT-2: only the adapters vary", _lora, ["peft", "transformers"], 1),
    Row("IA3 on GPT-2", _ia3, ["peft", "transformers"], 1),
    Row("prefix tuning on GPT-2", _prefix, ["peft", "transformers"], 1),
]
