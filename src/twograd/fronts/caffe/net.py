"""A net: layers in the order of their text, blobs by name, and which of them take part in the backward pass.

What flows in: the text of a net, and a phase. What flows out: a :class:`Net`. Read :meth:`Net.backward`, then
:meth:`Net._need_backward` and :func:`insert_splits`.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from twograd.fronts.caffe.layers import TYPES, Blob, Input, Layer, MemoryData, NetError, make_layer
from twograd.fronts.caffe.prototxt import InputParameter, LayerParameter, NetParameter, ParamSpec, Phase, parse
from twograd.fronts.kernel import numbers

log = logging.getLogger("twograd.fronts.caffe")


class InPlaceError(NetError):
    """A layer would write in place over what a backward reads."""


def filtered(param: NetParameter, phase: Phase) -> list[LayerParameter]:
    """The layers of this ``phase``: those whose rules, if they have any, include it, or do not exclude it."""
    kept = []
    for layer in param.layer:
        if layer.include and layer.exclude:
            raise NetError(f"layer '{layer.name}': Specify either include rules or exclude rules; not both.")
        matches = any(rule.phase in (None, phase) for rule in layer.include or layer.exclude)
        if matches if layer.include else not matches:
            kept.append(layer)
    return kept


def insert_splits(layers: Sequence[LayerParameter]) -> list[LayerParameter]:
    """The list with a Split layer after each top that several bottoms read; a loss weight counts as a reader.

    Raises NetError for a bottom that no layer above makes.
    """
    made_by: dict[str, tuple[int, int]] = {}  # a blob's name: the layer that has made it last, and which of its tops
    readers: dict[tuple[int, int], int] = Counter()
    sources: dict[tuple[int, int], tuple[int, int]] = {}
    for i, layer in enumerate(layers):
        for j, name in enumerate(layer.bottom):
            if name not in made_by:
                raise NetError(f"Unknown bottom blob '{name}' (layer '{layer.name}', bottom index {j})")
            sources[i, j] = made_by[name]
            readers[made_by[name]] += 1
        for j, name in enumerate(layer.top):
            made_by[name] = (i, j)
            readers[i, j] += any(layer.loss_weight[j : j + 1])
    result, given = [], Counter()
    for i, layer in enumerate(layers):
        layer = dataclasses.replace(layer, bottom=list(layer.bottom), loss_weight=list(layer.loss_weight))
        for j in range(len(layer.bottom)):
            source = sources[i, j]
            if readers[source] > 1:
                layer.bottom[j] = f"{_split_name(layers, source)}_{given[source]}"
                given[source] += 1
        result.append(layer)
        for j, name in enumerate(layer.top):
            if readers[i, j] < 2:
                continue
            split, weights = _split_name(layers, (i, j)), []
            if any(layer.loss_weight[j : j + 1]):  # the first copy has the weight, and no other reader
                weights = [layer.loss_weight[j], *[0.0] * (readers[i, j] - 1)]
                layer.loss_weight[j] = 0.0
                given[i, j] += 1
            tops = [f"{split}_{k}" for k in range(readers[i, j])]
            result.append(LayerParameter(split, "Split", [name], tops, loss_weight=weights))
    return result


def _split_name(layers: Sequence[LayerParameter], top: tuple[int, int]) -> str:
    """What the Split after a layer's top is called."""
    i, j = top
    return f"{layers[i].top[j]}_{layers[i].name}_{j}_split"


class Net:
    """A net, made of its text (or NetParameter) for a ``phase``.

    ``layers`` are in the order of the text, ``blobs`` and ``params`` by name; ``learnable_params`` are the parameters,
    each once, with the multipliers ``params_lr`` and ``params_decay``. ``layer_need_backward`` and
    ``bottom_need_backward`` say what :meth:`backward` does.

    Raises ParseError, with the line, and NetError: for a net that cannot be; InPlaceError where, with ``checks="on"``,
    a layer writes in place over what the backward of another, or its own, reads.
    """

    def __init__(
        self,
        text: str | NetParameter,
        phase: Phase = "TRAIN",
        *,
        checks: Literal["on", "off"] = "on",
        dtype: Any = np.float32,
        seed: int = 0,
    ):
        if phase not in ("TRAIN", "TEST") or checks not in ("on", "off"):
            raise ValueError(f"phase is 'TRAIN' or 'TEST', checks 'on' or 'off'; got {phase!r} and {checks!r}")
        param = parse(text, NetParameter) if isinstance(text, str) else text
        self.phase: Phase = phase
        self.name, self.dtype = param.name, np.dtype(dtype)
        self.layers: list[Layer] = []
        self.blobs: dict[str, Blob] = {}
        self.params: dict[str, list[Blob]] = {}
        self.learnable_params: list[Blob] = []
        self.params_lr: list[float] = []
        self.params_decay: list[float] = []
        self.loss = 0.0
        self._owners: dict[str, tuple[Layer, Blob, ParamSpec]] = {}
        self._ends: list[tuple[list[Blob], list[Blob]]] = []
        self._loss_weights: list[list[float]] = []
        layers = filtered(param, phase)
        if param.input:
            shapes = InputParameter(param.input_shape)
            layers.insert(0, LayerParameter("input", "Input", top=param.input, input_param=shapes))
        layers = [self._with_loss_weight(layer) for layer in layers]
        for i, layer in enumerate(insert_splits(layers)):
            self._append(layer, seed + i)
        self.inputs = [name for layer in self.layers if isinstance(layer, Input) for name in layer.param.top]
        available: dict[str, None] = {}
        for layer in self.layers:
            for name in layer.param.bottom:
                available.pop(name, None)
            available.update(dict.fromkeys(layer.param.top))
        self.outputs = list(available)
        self.layer_need_backward, self.bottom_need_backward = self._need_backward(param.force_backward)
        for name in self.outputs:
            log.info("This network produces output %s", name)
        if checks == "on":
            self._check_in_place()
        log.info("Network initialization done.")

    @staticmethod
    def _with_loss_weight(param: LayerParameter) -> LayerParameter:
        """With the loss weight that the type has by default; it is that of the first top."""
        weight = TYPES[param.type].default_loss_weight if param.type in TYPES else 0.0
        if param.loss_weight and len(param.loss_weight) != len(param.top):
            raise NetError(f"layer '{param.name}': loss_weight must be unspecified or specified once per top.")
        if param.loss_weight or not weight:
            return param
        return dataclasses.replace(param, loss_weight=[weight, *[0.0] * (len(param.top) - 1)])

    def _append(self, param: LayerParameter, seed: int) -> None:
        log.info("Creating Layer %s", param.name)
        if param.name in self.params or any(layer.name == param.name for layer in self.layers):
            raise NetError(f"two layers are called '{param.name}'")
        layer = make_layer(param, self.phase, self.dtype, seed)
        if len(param.propagate_down) not in (0, len(param.bottom)):
            layer.fail("propagate_down param must be specified either 0 or bottom_size times")
        bottoms = [self.blobs[name] for name in param.bottom]
        for name in param.bottom:
            log.info("%s <- %s", param.name, name)
        tops = []
        for j, name in enumerate(param.top):
            in_place = name in param.bottom[j : j + 1]
            log.info("%s -> %s%s", param.name, name, " (in-place)" * in_place)
            if name in self.blobs and not in_place:
                raise NetError(f"Top blob '{name}' produced by multiple sources.")
            tops.append(self.blobs.setdefault(name, Blob(dtype=self.dtype)))
        layer.setup(bottoms, tops)
        for top in tops:
            log.info("Top shape: %s", repr(top)[6:-1])
        self._append_params(layer)
        self.layers.append(layer)
        self._ends.append((bottoms, tops))
        self._loss_weights.append(param.loss_weight or [0.0] * len(tops))

    def _append_params(self, layer: Layer) -> None:
        """Enters the layer's parameters; one that has the name of an earlier one becomes that."""
        if len(layer.param.param) > len(layer.blobs):
            layer.fail(f"Too many params specified for layer {layer.name}")
        specs = [*layer.param.param, *(ParamSpec() for _ in layer.blobs[len(layer.param.param) :])]
        for i, (blob, spec) in enumerate(zip(layer.blobs, specs, strict=True)):
            layer.param_propagate_down[i] = spec.lr_mult != 0
            if spec.name in self._owners:
                owner, blob, first = self._owners[spec.name]
                if blob.shape != layer.blobs[i].shape:
                    raise NetError(
                        f"Cannot share param '{spec.name}' owned by layer '{owner.name}' with layer '{layer.name}'; "
                        f"shape mismatch.  Owner layer param shape is {blob!r}; sharing layer expects shape "
                        f"{layer.blobs[i]!r}"
                    )
                if (spec.lr_mult, spec.decay_mult) != (first.lr_mult, first.decay_mult):
                    raise NetError(f"Shared param '{spec.name}' has mismatched lr_mult or decay_mult.")
                layer.blobs[i] = blob
                continue
            if spec.name:
                self._owners[spec.name] = (layer, blob, spec)
            self.learnable_params.append(blob)
            self.params_lr.append(spec.lr_mult)
            self.params_decay.append(spec.decay_mult)
        if layer.blobs:
            self.params[layer.name] = layer.blobs

    def _need_backward(self, force: bool) -> tuple[list[bool], list[list[bool]]]:
        """Which layers, and which of their bottoms, :meth:`backward` differentiates.

        First down the list: a layer needs it if one of its parameters learns, or one of its bottoms comes from such a
        layer. Then up the list: only what a loss is computed from needs it.
        """
        layer_needs, bottom_needs, needing = [], [], dict.fromkeys(self.blobs, False)
        for layer in self.layers:
            asked = layer.param.propagate_down or [needing[name] for name in layer.param.bottom]
            needs = any(asked) or any(layer.param_propagate_down)
            needing.update(dict.fromkeys(layer.param.top, needs))
            layer_needs.append(needs)
            bottom_needs.append(list(asked))
        under_loss: set[str] = set()
        skipped: set[str] = set()
        for i in reversed(range(len(self.layers))):
            param = self.layers[i].param
            weights = zip(param.top, self._loss_weights[i], strict=True)
            reaching = [name for name, weight in weights if weight or name in under_loss]
            if not reaching or all(name in skipped for name in param.top):
                layer_needs[i] = False
                bottom_needs[i] = [False] * len(param.bottom)
            text = "%s needs backward computation." if layer_needs[i] else "%s does not need backward computation."
            log.info(text, param.name)
            for j, name in enumerate(param.bottom):
                (under_loss.add if reaching else skipped.add)(name)
                if not bottom_needs[i][j]:
                    skipped.add(name)
        if force:
            layer_needs = [bool(layer.param.bottom) for layer in self.layers]
            labels = [layer.labels for layer in self.layers]
            bottom_needs = [
                [down or j not in labels[i] for j, down in enumerate(downs)] for i, downs in enumerate(bottom_needs)
            ]
        for layer, downs, needs in zip(self.layers, bottom_needs, layer_needs, strict=True):
            layer.propagate_down = tuple(downs)
            if not needs or force:
                layer.param_propagate_down = [needs and force] * len(layer.blobs)
        return layer_needs, bottom_needs

    def _check_in_place(self) -> None:
        """Raises InPlaceError where a backward that is needed reads a blob that its layer or a later one overwrites."""
        for i, layer in enumerate(self.layers):
            if not self.layer_need_backward[i]:
                continue
            kernel = layer.kernel(self._ends[i][0])
            first_top = len(kernel.operands)
            read = [(name, i, "read") for at, name in enumerate(layer.param.bottom) if at in kernel.reads]
            read += [
                (name, i + 1, "written") for at, name in enumerate(layer.param.top, first_top) if at in kernel.reads
            ]
            for name, start, what in read:
                for other in self.layers[start:]:
                    if name in other.param.top and name in other.param.bottom:
                        whose = (
                            "its own backward" if other is layer else f"the backward of '{layer.name}' ({layer.type})"
                        )
                        raise InPlaceError(
                            f"layer '{other.name}' ({other.type}) writes in place over the blob '{name}', and {whose} "
                            f"reads there what it has {what} on the way forward: the gradient would be wrong. Give the "
                            "top another name. (Caffe does not see this: checks='off'.)"
                        )

    # --- running ------------------------------------------------------------------------------------------------------

    def forward(self, **inputs: Any) -> dict[str, np.ndarray]:
        """Runs the layers in the order of the list; returns the data of the ``outputs``, and sets ``loss``.

        ``inputs`` fill blobs of Input layers, by name. For another batch size, reshape the blob first.
        """
        for name, value in inputs.items():
            if name not in self.inputs:
                raise NetError(f"Input blob arguments do not match net inputs: {name} is none of {self.inputs}")
            blob, value = self.blobs[name], numbers(value)
            if value.shape != blob.shape:
                raise NetError(
                    f"the input {name} is of size {list(blob.shape)}, got {list(value.shape)}; for others, say "
                    f"net.blobs[{name!r}].reshape({', '.join(map(str, value.shape))}) first"
                )
            blob.data[...] = value
        self.loss = 0.0
        for layer, (bottoms, tops), weights in zip(self.layers, self._ends, self._loss_weights, strict=True):
            layer.forward(bottoms, tops)
            self.loss += sum(w * float(top.data.sum()) for w, top in zip(weights, tops, strict=True) if w)
        return {name: self.blobs[name].data for name in self.outputs}

    def backward(self) -> None:
        """Runs the layers that need it from the end of the list. Diffs of parameters are added to."""
        for i in reversed(range(len(self.layers))):
            if not self.layer_need_backward[i]:
                continue
            bottoms, tops = self._ends[i]
            for top, weight in zip(tops, self._loss_weights[i], strict=True):
                if weight:
                    top.diff[...] = weight
            self.layers[i].backward(tops, self.bottom_need_backward[i], bottoms)

    def clear_param_diffs(self) -> None:
        for blob in self.learnable_params:
            blob.diff[...] = 0

    def update(self) -> None:
        """Takes each parameter's diff from it."""
        for blob in self.learnable_params:
            blob.data[...] -= blob.diff

    def set_input_arrays(self, data: Any, labels: Any) -> None:
        """What the MemoryData layer hands out, batch after batch, from now on."""
        for layer in self.layers:
            if isinstance(layer, MemoryData):
                return layer.set_arrays(data, labels)
        raise NetError("set_input_arrays may only be called if a layer is a MemoryDataLayer")

    def share_trained_layers_with(self, other: "Net") -> None:
        """Has the parameters of ``other`` for its own, layer by layer of the same name."""
        for name, theirs in other.params.items():
            if name not in self.params:
                log.info("Ignoring source layer %s", name)
                continue
            for i, (mine, source) in enumerate(zip(self.params[name], theirs, strict=True)):
                if mine.shape != source.shape:
                    raise NetError(
                        f"Cannot share param {i} weights from layer '{name}'; shape mismatch.  Source param shape is "
                        f"{source!r}; target param shape is {mine!r}"
                    )
                mine.share_data(source)
