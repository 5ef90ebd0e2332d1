# diffusers declares its outputs as tuples, and timesteps as `IntTensor`.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""The models that take part in training, their calls, and random numbers on their device.

Shapes: B rows, c h w latents, L text tokens of width D, F channels of the last features.

Tested in tests/unicon/training/test_models.py and tests/unicon/training/mini/test_pretrain.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from transformers import CLIPTextModel, CLIPTokenizer

from unicon.layout import Layout
from unicon.training.auxiliary_heads import last_features
from unicon.training.joint_alignment import AttentionInput, attention_inputs


class UNetOutput(NamedTuple):
    """What a call of the UNet returns in training."""

    prediction: Tensor
    """(B, c, h, w)."""
    features: Tensor
    """The last features (B, F, h, w), see `ConditionHeads`."""
    attention_inputs: list[AttentionInput]
    """See `attention_inputs`; empty unless asked for."""


class UNetCall:
    """Calls a UNet in training, compiled if asked.

    Compiled calls are traced with the hooks that read the features, which then stay in the UNet: hooks that come and go
    would have the call compiled again in every step. If it cannot be compiled, one line says so, and it runs as it is.
    """

    def __init__(
        self, unet: UNet2DConditionModel, *, compiles: bool = False, backend: str | Callable[..., Any] = "inductor"
    ) -> None:
        """Prepare the calls.

        Args:
            unet: The UNet.
            compiles: Whether to compile calls with `torch.compile`.
            backend: The backend of `torch.compile`.
        """
        self.unet, self.compiles, self._hooks = unet, compiles, ExitStack()
        if compiles:
            self._features = self._hooks.enter_context(last_features(unet))
            self._attended = self._hooks.enter_context(attention_inputs(unet))
            mode = "reduce-overhead" if backend == "inductor" and unet.device.type == "cuda" else None
            self._compiled = torch.compile(self._run, dynamic=False, mode=mode, backend=backend)

    def __call__(
        self, latents: Tensor, timesteps: Tensor, prompt_embeds: Tensor, layout: Layout, *, attended: bool = False
    ) -> UNetOutput:
        """Call the UNet.

        Args:
            latents: (B, c, h, w).
            timesteps: (B,).
            prompt_embeds: (B, L, D).
            layout: The rows.
            attended: Whether to return the inputs of the self-attention modules.
        """
        arguments = (latents, timesteps, prompt_embeds, layout, attended)
        if self.compiles:
            self._features.clear()  # outside, since the graph depends on what the lists hold
            self._attended.clear()
            try:
                return self._compiled(*arguments)
            except TorchDynamoException as error:
                print(f"the UNet is not compiled: {' '.join(str(error).split())[:200]}", file=sys.stderr)
                self.close()
        with ExitStack() as hooks:
            self._features = hooks.enter_context(last_features(self.unet))
            self._attended = hooks.enter_context(attention_inputs(self.unet)) if attended else []
            return self._run(*arguments)

    def close(self) -> None:
        """Remove the hooks of compiled calls from the UNet. Further calls are not compiled."""
        self.compiles = False
        self._hooks.close()

    def _run(
        self, latents: Tensor, timesteps: Tensor, prompt_embeds: Tensor, layout: Layout, attended: bool
    ) -> UNetOutput:
        joint = {"pairs": layout}
        outputs = self.unet(latents, timesteps, prompt_embeds, cross_attention_kwargs=joint, return_dict=False)
        return UNetOutput(outputs[0], self._features[0], list(self._attended) if attended else [])


@dataclass(frozen=True)
class TrainingModels:
    """The parts of a Stable Diffusion model that take part in training."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDPMScheduler
    compiles: bool = False
    """Whether calls of the UNet are compiled."""

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters of the UNet and the text encoder by name."""
        return dict(nn.ModuleDict({"unet": self.unet, "text_encoder": self.text_encoder}).named_parameters())

    @cached_property
    def call(self) -> UNetCall:
        """The calls of the UNet, which all losses share."""
        return UNetCall(self.unet, compiles=self.compiles)

    @cached_property
    def _tokens(self) -> dict[str, Tensor]:
        return {}

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Encode B prompts to embeddings (B, L, D). A prompt that occurs several times is encoded once."""
        unique = list(dict.fromkeys(prompts))
        new = [prompt for prompt in unique if prompt not in self._tokens]
        if new:
            length = self.tokenizer.model_max_length
            tokens = self.tokenizer(new, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            self._tokens.update(zip(new, tokens.input_ids, strict=True))
        device = self.text_encoder.device
        ids = torch.stack([self._tokens[prompt] for prompt in unique])
        embeddings = self.text_encoder(ids.to(device, non_blocking=True)).last_hidden_state
        places = {prompt: place for place, prompt in enumerate(unique)}
        return embeddings[torch.tensor([places[prompt] for prompt in prompts]).to(device, non_blocking=True)]


def normal_noise(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal noise, float32, from a generator on the CPU.

    On another device it is drawn there, with a seed from the generator, which saves computing and copying it.
    """
    if device.type == "cpu":
        return torch.randn(tuple(shape), generator=generator)
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.randn(tuple(shape), generator=torch.Generator(device).manual_seed(seed), device=device)
