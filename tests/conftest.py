"""What all tests share: XLA compiles them fast, and what it compiles runs slowly.

The tests compile some ten thousand tiny programs, and spend most of their time on that. Without LLVM's optimisations,
and with elementwise loops emitted as they are and not by way of MLIR, compiling takes less than half of the time.
"""

import os

import pytest

FLAGS = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
)

# XLA reads this once, when the first array is made. Processes that a test starts inherit it.
os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *FLAGS)).strip()


@pytest.fixture
def m(request):
    """The module named by the parameter: the tape, or PyTorch where it is installed."""
    return pytest.importorskip(request.param)
