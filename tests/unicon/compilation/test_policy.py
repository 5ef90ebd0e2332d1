from __future__ import annotations

import pytest

from unicon.compilation.policy import CompileSettings, Forecast, compiled_rows


def test_few_numbers_of_rows_are_compiled() -> None:
    assert [compiled_rows(rows) for rows in (1, 2, 3, 5, 8, 9, 33)] == [1, 2, 4, 8, 8, 16, 64]
    assert [compiled_rows(rows, 20) for rows in (3, 9, 16, 17, 20)] == [4, 16, 16, 20, 20]
    assert {compiled_rows(rows, 16) for rows in range(1, 17)} == {1, 2, 4, 8, 16}
    assert all(compiled_rows(rows, most) >= rows for most in range(1, 40) for rows in range(1, most + 1))


def test_compiling_pays_where_it_saves_more_than_it_takes() -> None:
    forecast = Forecast(calls_left=10_000, call_s=0.06, gain=1.25, compile_s=100)
    assert forecast.saving_s == pytest.approx(120)
    assert forecast.pays
    assert not Forecast(calls_left=8_000, call_s=0.06, gain=1.25, compile_s=100).pays
    assert Forecast(calls_left=8_000, call_s=0.06, gain=1.25, compile_s=20).pays


def test_what_is_left_follows_from_what_was_seen() -> None:
    known = CompileSettings(mode="auto", rows_expected=1_000)
    assert known.calls_left(calls=40, rows=100) == 360
    assert known.calls_left(calls=40, rows=1_200) == 0
    assert CompileSettings(mode="auto").calls_left(calls=40, rows=100) == 40


def test_devices_of_each_mode() -> None:
    on = {mode: [device for device in ("cpu", "cuda", "mps") if CompileSettings(mode=mode).is_on(device)]
          for mode in ("never", "auto", "always")}  # fmt: skip
    assert on == {"never": [], "auto": ["cuda"], "always": ["cpu", "cuda", "mps"]}


def test_other_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="never, auto, always; got 'sometimes'"):
        CompileSettings(mode="sometimes")  # type: ignore[arg-type]
