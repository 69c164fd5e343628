"""``tf.experimental.numpy``, and what networks are made of under PyTorch's names and in its layouts. Only this module's
importer needs TensorFlow, which is told here, before its first op, what only then it can be told.

Its thread pools get as many threads as the others may use; where an op has run before, they stay as they are. Its
convolutions on a CPU want the channels last: they are moved there and back around each op, which costs time.
"""

import contextlib
import os
from typing import Any

from twograd.compare import environment

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_stderr = os.dup(2)
with open(os.devnull, "wb") as _nowhere:  # for what no setting keeps TensorFlow from saying when it is imported
    os.dup2(_nowhere.fileno(), 2)
    try:
        import tensorflow as tf
    finally:
        os.dup2(_stderr, 2)
        os.close(_stderr)

tf.get_logger().setLevel("ERROR")
with contextlib.suppress(RuntimeError):
    tf.config.threading.set_intra_op_parallelism_threads(environment.usable_cores())
    tf.config.threading.set_inter_op_parallelism_threads(environment.usable_cores())
tf.experimental.numpy.experimental_enable_numpy_behavior()


def __getattr__(name: str) -> Any:
    return getattr(tf.experimental.numpy, name)


def relu(x: Any) -> Any:
    return tf.nn.relu(x)


def linear(x: Any, weight: Any, bias: Any) -> Any:
    return tf.linalg.matmul(x, weight, transpose_b=True) + bias


def conv2d(x: Any, weight: Any, bias: Any) -> Any:
    kernel = tf.transpose(weight, (2, 3, 1, 0))
    return _channels_first(tf.nn.conv2d(_channels_last(x), kernel, strides=1, padding="VALID") + bias)


def max_pool2d(x: Any, kernel_size: int) -> Any:
    return _channels_first(tf.nn.max_pool2d(_channels_last(x), kernel_size, strides=kernel_size, padding="VALID"))


def cross_entropy(scores: Any, labels: Any) -> Any:
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores))


def _channels_last(x: Any) -> Any:
    return tf.transpose(x, (0, 2, 3, 1))


def _channels_first(x: Any) -> Any:
    return tf.transpose(x, (0, 3, 1, 2))
