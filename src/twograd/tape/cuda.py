"""``torch.cuda`` of the tape: whether there is a GPU. JAX decides where arrays live; see ``dtypes.device``."""

import jax

from twograd.tape.dtypes import device
from twograd.tape.factories import manual_seed as manual_seed


def device_count() -> int:
    """How many GPUs JAX has."""
    try:
        return len(jax.devices(device("cuda").platform))
    except RuntimeError:
        return 0


def is_available() -> bool:
    """Whether JAX has a GPU."""
    return device_count() > 0


def manual_seed_all(seed: int) -> None:
    """Starts this thread's sequence of random numbers anew: there is one for all devices."""
    manual_seed(seed)


def synchronize(device: object = None) -> None:
    """Waits for what was computed so far."""
    jax.effects_barrier()


def empty_cache() -> None:
    """Nothing to do: JAX keeps its memory."""
