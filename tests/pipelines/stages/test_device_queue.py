"""The device's thread: one call at a time, older chunks first, exceptions to the caller, nothing kept alive."""

import gc
import threading
import time
import weakref

import pytest

from pipelines.stages.device_queue import DeviceQueue, DeviceUse


def test_calls_of_several_threads_run_on_one_thread_and_older_chunks_come_first() -> None:
    queue, order, names = DeviceQueue(), [], set()
    began, release = threading.Event(), threading.Event()

    def work(label: str) -> str:
        names.add(threading.current_thread().name)
        order.append(label)
        if label == "first":
            began.set()
            release.wait(5)
        return label.upper()

    results: dict[str, str] = {}

    def call(label: str, chunk: int) -> None:
        with queue.used_by(DeviceUse(chunk)):
            results[label] = queue.run(lambda: work(label))

    threads = []
    for label, chunk in (("first", 3), ("younger", 5), ("older", 4), ("older too", 4)):
        threads.append(threading.Thread(target=call, args=(label, chunk)))
        threads[-1].start()
        assert began.wait(5)
        time.sleep(0.02)
    release.set()
    for thread in threads:
        thread.join(5)
    assert order == ["first", "older", "older too", "younger"]
    assert results == {label: label.upper() for label in order}
    assert len(names) == 1 and threading.current_thread().name not in names


def test_time_on_the_device_is_counted_for_the_caller_and_in_total() -> None:
    queue, use, other = DeviceQueue(), DeviceUse(0), DeviceUse(1)
    with queue.used_by(use):
        queue.run(lambda: time.sleep(0.02))
        queue.run(lambda: time.sleep(0.02))
    with queue.used_by(other):
        queue.run_here(lambda: time.sleep(0.01))
    assert use.device_s >= 0.04 and 0.01 <= other.device_s < use.device_s
    assert queue.busy_s == pytest.approx(use.device_s + other.device_s)


def test_an_exception_reaches_the_caller_and_keeps_nothing_alive() -> None:
    class Tensor:
        """Stands for memory of the device."""

    queue, kept = DeviceQueue(), []

    def fail() -> None:
        tensor = Tensor()
        kept.append(weakref.ref(tensor))
        raise RuntimeError("CUDA out of memory")

    gc.disable()
    try:
        with queue.used_by(DeviceUse(0)):
            try:
                queue.run(fail)
            except RuntimeError as error:
                assert "out of memory" in str(error)
            queue.run(lambda: None)
        assert kept[0]() is None, "a cycle would keep the memory until the garbage collector runs"
    finally:
        gc.enable()


def test_the_thread_ends_with_its_queue() -> None:
    queue, names = DeviceQueue(), []
    with queue.used_by(DeviceUse(0)):
        queue.run(lambda: names.append(threading.current_thread()))
    del queue
    gc.collect()
    names[0].join(5)
    assert not names[0].is_alive()
