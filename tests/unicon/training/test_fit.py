"""The training loop learns, and resumes exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from unicon.training.fit import FitConfig, fit


def _line(folder: Path, steps: int, **options) -> tuple[nn.Linear, dict[str, nn.Parameter]]:
    """Fit a line with noise drawn from the step's generator."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    parameters = dict(model.named_parameters())

    def loss(generator: torch.Generator) -> dict[str, torch.Tensor]:
        inputs = torch.randn(16, 2, generator=generator)
        target = inputs @ torch.tensor([[2.0], [-1.0]]) + 0.5
        return {"loss": (model(inputs) - target).square().mean()}

    config = FitConfig(**{"steps": steps, "learning_rate": 0.05, "warmup_steps": 5, "checkpoint_every": 30, **options})
    fit(parameters, loss, config, folder)
    return model, parameters


def test_fit_learns(tmp_path: Path) -> None:
    model, _ = _line(tmp_path, 300, ema_decay=0.9)
    assert torch.allclose(model.weight, torch.tensor([[2.0, -1.0]]), atol=0.02)
    assert torch.allclose(model.bias, torch.tensor([0.5]), atol=0.02)


def test_float16_scales_the_loss(tmp_path: Path) -> None:
    model, _ = _line(tmp_path, 300, ema_decay=0.9, autocast_dtype="float16")
    assert torch.allclose(model.weight, torch.tensor([[2.0, -1.0]]), atol=0.05)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["scaler"]["scale"] > 1
    again, _ = _line(tmp_path, 300, ema_decay=0.9, autocast_dtype="float16")
    assert torch.equal(model.weight, again.weight)


@pytest.mark.parametrize("optimizer", [{}, {"matrix_learning_rate": 0.02}], ids=["adamw", "muon"])
def test_an_interrupted_fit_takes_the_same_steps(tmp_path: Path, optimizer: dict) -> None:
    whole, _ = _line(tmp_path / "whole", 60, **optimizer)
    torch.manual_seed(0)

    class KilledError(Exception):
        pass

    model = nn.Linear(2, 1)
    calls = 0

    def loss(generator: torch.Generator) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == 45:
            raise KilledError
        inputs = torch.randn(16, 2, generator=generator)
        target = inputs @ torch.tensor([[2.0], [-1.0]]) + 0.5
        return {"loss": (model(inputs) - target).square().mean()}

    config = FitConfig(steps=60, learning_rate=0.05, warmup_steps=5, checkpoint_every=30, **optimizer)
    with pytest.raises(KilledError):
        fit(dict(model.named_parameters()), loss, config, tmp_path / "killed")
    resumed, _ = _line(tmp_path / "killed", 60, **optimizer)
    assert torch.equal(whole.weight, resumed.weight)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    _line(tmp_path, 30)
    other = {"elsewhere": nn.Parameter(torch.zeros(1))}
    config = FitConfig(steps=40, learning_rate=0.1)
    with pytest.raises(ValueError, match="another recipe"):
        fit(other, lambda generator: {"loss": other["elsewhere"].sum()}, config, tmp_path)


def test_learning_rate_warms_up_and_decays() -> None:
    config = FitConfig(steps=100, learning_rate=1.0, warmup_steps=10, final_learning_rate_fraction=0.1)
    rates = [config.learning_rate_factor(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("options", [{"steps": 0}, {"ema_decay": 1.0}, {"autocast_dtype": "float8"}])
def test_fit_refuses_nonsense(options: dict) -> None:
    with pytest.raises(ValueError):
        FitConfig(**{"steps": 1, "learning_rate": 0.1, **options})
