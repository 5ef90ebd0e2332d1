"""What a training tells: workers, a line of progress, and rows that are left out, counted by reason."""

import io

from pipelines.training.progress import TrainingProgress


def test_the_lines_of_a_training() -> None:
    stream = io.StringIO()
    progress = TrainingProgress(steps=100, stream=stream)
    progress({"started": 0, "workers": 2})
    progress({"problems": [["a", "broken"], ["b", "broken"], ["c", "too tall"]], "without_caption": ["d", "e"]})
    progress({"problems": [["a", "broken"]]})  # the same row in another epoch
    progress({"step": 50, "loss": 0.123456, "pairs_a_second": 12.34})
    progress({"validated": 50, "values": {"canny_f1": 0.91234}})
    progress({"started": 50, "workers": 1})
    progress({"step": 60, "loss": 0.1, "pairs_a_second": 10.0})
    progress.end({"weight 0": 7})
    lines = stream.getvalue().splitlines()
    assert lines[0] == "training with 2 workers, 100 steps"
    assert lines[1].startswith("step 50/100  loss 0.1235  12.3 pairs/s  ETA 0:0")
    assert lines[2] == "held-out rows after step 50: canny_f1 0.9123"
    assert lines[3] == "training with 1 worker from step 50 of 100 on"
    assert lines[5:] == [
        "left out: 7 rows: weight 0",
        "left out: 2 rows: broken",
        "left out: 1 row: too tall",
        "2 rows have no caption; they are trained with the trigger text alone",
    ]


def test_failures_are_kept() -> None:
    progress = TrainingProgress(steps=1, stream=io.StringIO())
    progress({"failure": "Losses and gradients are finite; row 'a' is not"})
    progress({"out_of_memory": "tried to allocate"})
    assert progress.failure.endswith("'a' is not") and progress.out_of_memory == "tried to allocate"
