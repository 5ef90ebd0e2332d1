"""The loop stops at losses that are not finite, checkpoints on request, and reports what it does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unicon.training.checkpoints import FolderCheckpoints, deserialize, serialize
from unicon.training.fit_config import FitConfig
from unicon.training.trainer import NonFiniteLossError, ResumeError, Trainer


class Squares:
    """The gradient of a square. In one step it is another value."""

    def __init__(self, parameter: nn.Parameter, strange: dict[int, float] | None = None) -> None:
        self.parameter, self.strange = parameter, strange or {}

    def __call__(self, step: int, scaler: torch.amp.GradScaler) -> dict[str, Tensor]:
        """See `StepGradients`."""
        loss = self.parameter.square().sum() * self.strange.get(step, 1.0)
        scaler.scale(loss).backward()
        return {"loss": loss}

    def failure(self, step: int) -> NonFiniteLossError:
        """See `StepGradients`."""
        return NonFiniteLossError(step, [f"key-{number}" for number in range(10)], False)


def new_trainer(folder: Path, **options) -> tuple[Trainer, nn.Parameter]:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    settings = options.pop("settings", None)
    config = FitConfig(
        **{"steps": 6, "learning_rate": 0.1, "warmup_steps": 1, "log_every": 2, "checkpoint_every": 4, **options}
    )
    return Trainer({"value": parameter}, config, FolderCheckpoints(folder), settings=settings), parameter


def test_callbacks_are_called_when_they_are_due(tmp_path: Path) -> None:
    trainer, parameter = new_trainer(tmp_path, ema_decay=0.5)
    calls: list[tuple[str, int]] = []
    trainer.run(
        Squares(parameter),
        on_metrics=lambda step, values: calls.append(("metrics", step)),
        on_checkpoint=lambda step: calls.append(("checkpoint", step)),
        wants_checkpoint=lambda: trainer.step == 1,
        on_validation=lambda step: calls.append(("validation", step)),
        validate_every=3,
    )
    assert calls == [
        ("checkpoint", 1), ("metrics", 2), ("validation", 3), ("metrics", 4), ("checkpoint", 4), ("metrics", 6),
        ("checkpoint", 6), ("validation", 6),
    ]  # fmt: skip
    assert torch.equal(
        parameter, deserialize((tmp_path / "state.pt").read_bytes(), torch.device("cpu"))["ema"]["value"]
    )


def test_metrics_are_numbers(tmp_path: Path) -> None:
    trainer, parameter = new_trainer(tmp_path)
    seen: list[dict[str, float]] = []
    trainer.run(Squares(parameter), on_metrics=lambda step, values: seen.append(values))
    assert seen[0].keys() == {"loss", "grad_norm", "learning_rate", "seconds_a_step"}
    assert seen[0]["learning_rate"] == 0.1 and 0 < seen[-1]["loss"] < seen[0]["loss"] < 5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path, value: float) -> None:
    trainer, parameter = new_trainer(tmp_path)
    with pytest.raises(
        NonFiniteLossError, match=r"together, though of none alone, are not in step 3: 'key-0', .*, \.\.\."
    ) as found:
        trainer.run(Squares(parameter, {3: value}))
    assert found.value.step == 3 and len(found.value.keys) == 10
    assert parameter.isfinite().all() and not (tmp_path / "state.pt").exists()


def test_an_overflow_of_float16_halves_the_scale_and_goes_on(tmp_path: Path) -> None:
    """The scaled loss is too large, the loss is not."""
    trainer, parameter = new_trainer(tmp_path, autocast_dtype="float16")
    trainer.take_step(Squares(parameter))
    before, scale = parameter.detach().clone(), trainer.scaler.get_scale()
    trainer.take_step(Squares(parameter, {1: 1e34}))
    assert torch.equal(parameter, before) and trainer.scaler.get_scale() == scale / 2 and trainer.step == 2
    with pytest.raises(NonFiniteLossError):
        trainer.take_step(Squares(parameter, {2: float("nan")}))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    trainer, parameter = new_trainer(tmp_path, settings={"batch": 4})
    trainer.run(Squares(parameter))
    assert new_trainer(tmp_path, settings={"batch": 4})[0].step == 6
    with pytest.raises(ResumeError, match=r"differs in \(its, this run's\) {'batch': \(4, 8\)}"):
        new_trainer(tmp_path, settings={"batch": 8})
    with pytest.raises(ResumeError, match="beyond the 5 steps asked for"):
        new_trainer(tmp_path, steps=5)


def test_a_state_is_read_as_tensors_only() -> None:
    with pytest.raises(Exception, match="Weights only load failed"):
        deserialize(serialize({"step": Squares}), torch.device("cpu"))
