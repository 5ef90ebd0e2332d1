"""Tiny image-to-text models of random weights, written as folders that the real loader reads."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    GPT2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
IMAGE = "<image>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "boat", "on", "the", "calm", "sea", "clouds"]


def write_tiny_blip(folder: Path) -> Path:
    """Write a BLIP, whose processor handles images and text."""
    torch.manual_seed(0)
    ids = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {**SMALL, **ids, "vocab_size": len(WORDS), "encoder_hidden_size": 16, "max_position_embeddings": 80}
    config = BlipConfig(
        text_config=text, vision_config={**SMALL, "image_size": 32, "patch_size": 16}, projection_dim=16
    )
    BlipForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(images, _tokenizer(folder)).save_pretrained(folder)
    return folder


def write_tiny_vit_gpt2(folder: Path) -> Path:
    """Write an encoder and a decoder, with an image processor and a tokenizer of their own."""
    torch.manual_seed(1)
    encoder = ViTConfig(**SMALL, image_size=32, patch_size=16)
    decoder = GPT2Config(
        vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=80, add_cross_attention=True,
        bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    model = VisionEncoderDecoderModel(config)
    model.generation_config.update(decoder_start_token_id=2, bos_token_id=2, eos_token_id=3, pad_token_id=0)
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    _tokenizer(folder).save_pretrained(folder)
    return folder


def write_tiny_llava(folder: Path) -> Path:
    """Write a model for conversations."""
    torch.manual_seed(4)
    tokenizer = _tokenizer(folder, IMAGE)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**SMALL, image_size=32, patch_size=16, projection_dim=16),
        text_config=LlamaConfig(**SMALL, vocab_size=len(tokenizer), num_key_value_heads=2, pad_token_id=0),
        image_token_index=len(WORDS),
        vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.update(bos_token_id=2, eos_token_id=3, pad_token_id=0)
    model.save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(
        images, tokenizer, patch_size=16, vision_feature_select_strategy="default", chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _tokenizer(folder: Path, *special: str) -> BertTokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*WORDS, *special]))
    return BertTokenizer(str(folder / "vocab.txt"), additional_special_tokens=list(special))
