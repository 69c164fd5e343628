"""Caffe: a net is a text that lists layers, which hand on blobs that have data and diff.

    from twograd.fronts import caffe

    net = caffe.Net('''
        layer { name: "data" type: "Input" top: "data" top: "label"
                input_param { shape { dim: 8 dim: 64 } shape { dim: 8 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
                inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }''')
    net.forward(data=images, label=labels)
    net.backward()
    net.params["ip"][0].diff

What flows in: such a text, read by ``prototxt.py``. What flows out: a :class:`Net`. Read :meth:`Net.backward`, which is
all of the walk: the list of layers from its end. Which layers take part was found when the net was made
(:meth:`Net._need_backward`); where a blob has two readers a Split layer was put in, whose backward adds up
(:func:`insert_splits`). A layer is a function; its derivative is made of the rules (``kernel.py``).

Data and diff are NumPy arrays, floats all, labels too. What Caffe logs goes to the logger ``twograd.fronts.caffe``.

A layer may write its top over its bottom. Caffe does not see whether another layer's backward reads what was there,
and then its gradients are wrong without an error (BVLC/caffe#2015): so it is here with ``checks="off"``. With
``checks="on"``, which is the default, such a net is refused when it is made, as the rules say what a backward reads.
"""

from twograd.fronts.caffe.checker import GradientChecker as GradientChecker
from twograd.fronts.caffe.checker import GradientError as GradientError
from twograd.fronts.caffe.layers import Blob as Blob
from twograd.fronts.caffe.layers import Layer as Layer
from twograd.fronts.caffe.layers import NetError as NetError
from twograd.fronts.caffe.layers import make_layer as make_layer
from twograd.fronts.caffe.net import InPlaceError as InPlaceError
from twograd.fronts.caffe.net import Net as Net
from twograd.fronts.caffe.net import insert_splits as insert_splits
from twograd.fronts.caffe.prototxt import NetParameter as NetParameter
from twograd.fronts.caffe.prototxt import SolverParameter as SolverParameter
from twograd.fronts.caffe.prototxt import parse as parse
from twograd.fronts.caffe.solver import Solver as Solver
