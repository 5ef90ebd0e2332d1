"""Where the files of a training go, and its model card."""

from pipelines.training.card import card_text
from pipelines.training.output import AdapterOutput
from unicon.adapters.config import AdapterConfig
from unicon.training.fit_config import FitConfig
from unicon.training.recipe import AdapterRecipe, TrainedAdapter


def test_a_folder_receives_everything_and_a_file_only_its_adapter_and_card() -> None:
    names = ["canny.safetensors", "official/canny/model.pth", "official/canny/xy_lora/a.safetensors", "README.md"]
    folder = AdapterOutput(uri="s3://bucket/adapters", model="mini", data={})
    assert [folder.place_of(name) for name in names] == [f"s3://bucket/adapters/{name}" for name in names]
    file = AdapterOutput(uri="adapters/edges.safetensors", model="mini", data={})
    assert [file.place_of(name) for name in names] == ["adapters/edges.safetensors", None, None, "adapters/edges.md"]
    assert file.place_of("loss.svg") == "adapters/edges-loss.svg"


def test_the_card_tells_data_settings_losses_and_accuracy() -> None:
    recipe = AdapterRecipe(
        adapters=(TrainedAdapter(config=AdapterConfig(name="canny", kind="edge", rank=8)),),
        fit=FitConfig(steps=100, learning_rate=1e-3),
    )
    log = [{"step": step, "loss": 1 / step} for step in range(10, 101, 10)]
    validation = [{"step": 50, "canny_f1": 0.5}, {"step": 100, "canny_f1": 0.75}]
    data = {"corpus": "s3://bucket/corpus", "rows": "90 trained, 10 held out", "selection": "a|b"}
    card = card_text(recipe, "mini", data, log, validation, "loss.svg", {"canny": "canny.safetensors"})
    assert card.startswith("---\nlibrary_name: unicon\nbase_model: mini\ntags:\n- unicon\n- stable-diffusion\n- edge\n")
    for line in (
        "UniCon.from_pretrained('mini', adapters={'canny': 'canny.safetensors'})",
        "(found,) = model.estimate([image], 'canny')",
        "| rows | `90 trained, 10 held out` |",
        "| selection | `a\\|b` |",
        "| rank | `8` |",
        "| learning_rate | `0.001` |",
        "| step | 10 | 30 | 60 | 80 | 100 |",
        "| canny_f1 | 0.5 | 0.75 |",
        "![loss by steps](loss.svg)",
    ):
        assert line in card
    assert "No loss was logged yet." in card_text(recipe, "mini", {}, [], [], "loss.svg", {"canny": "c"})
