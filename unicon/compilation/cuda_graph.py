"""A call captured as a CUDA graph, which launches all its kernels at once.

Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
Tested in tests/unicon/compilation/test_on_gpu.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

WARM_UP_CALLS = 3
"""Calls before the capture, in which libraries allocate and choose their kernels."""


class CudaGraph:
    """A function of tensors of fixed shapes. Its results are copies, which later calls do not change.

    The inputs are copied to the place of those of the capture. Graphs of one `pool` share the memory of what is between
    their inputs and results, so they must not run at the same time.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor], pool: Any) -> None:
        """Capture a call.

        Args:
            function: Returns a tuple of tensors. It must not wait for the device.
            inputs: Tensors on one CUDA device. Every call has these shapes and types.
            pool: What `torch.cuda.graph_pool_handle` returned.
        """
        self._inputs = [tensor.clone() for tensor in inputs]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(inputs[0].device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP_CALLS):
                    function(*self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
                self._outputs = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the graph on other inputs."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)
