"""The steps of the PyTorch twin that benchmarks/speed.py measures. Imports no JAX."""

from typing import Any

import torch
from speed_steps import Request, Steps
from speed_trace import per_step
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from twin.model import TorchASTRA
from twin.sizes import Sizes
from twin.training import TorchBatch, make_step, predict

LEARNING_RATE = 5e-5

# As XLA multiplies in float32 on a GPU, and as PyTorch's users are told to.
torch.set_float32_matmul_precision("high")


def prepare(request: Request, batch: dict[str, Any] | None) -> Steps:
    """A train step, dropout and augmentation on, a forward pass as in an evaluation, a product."""
    torch.manual_seed(0)
    device = torch.device("cuda" if request.device == "gpu" else "cpu")
    half = torch.bfloat16 if request.dtype == "bfloat16" else None
    if batch is None:
        matrix = torch.rand(request.clips, request.clips, device=device, dtype=half)
        return Steps(lambda: matrix @ matrix, _wait)
    model = TorchASTRA(Sizes.from_json(request.sizes)).to(device)
    clips = TorchBatch.of(batch, device)
    told = {"parameters": sum(p.numel() for p in model.parameters())}
    compiled = request.framework == "torch compiled"
    if request.mode == "train":
        step = make_step(model, LEARNING_RATE, half, compiled)
        return Steps(lambda: step(clips), _wait, told)
    model.eval()
    forward = torch.compile(predict, fullgraph=True) if compiled else predict

    def take() -> None:
        with torch.inference_mode():
            forward(model, clips, half)

    return Steps(take, _wait, told)


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def forget_peak() -> None:
    """Counts from here on."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> int | None:
    """The most bytes of tensors on the GPU; None where none is used."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else None


def count_kernels(steps: Steps, count: int) -> dict[str, float]:
    """Kernels a step and their milliseconds, copies aside; none on a CPU."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_initialized():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as found:
        for _ in range(count):
            steps.take()
        steps.wait()
    kernels = [
        event
        for event in found.events()
        if event.device_type == DeviceType.CUDA and not event.name.startswith(("Memcpy", "Memset"))
    ]
    return per_step(len(kernels), sum(e.time_range.elapsed_us() for e in kernels) / 1e3, count)
