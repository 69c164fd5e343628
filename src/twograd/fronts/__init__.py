"""Older systems' ways to differentiate, each a short file over the engines: ``torch7`` and ``caffe``.

Both are static and symbol-to-value: what is run is fixed before it runs, each layer computes its cotangents by value,
and nothing of a gradient can be differentiated again. Read ``kernel.py`` first: it makes a layer's forward and backward
of a function and the table of rules. (TensorFlow 1's and Theano's ways are in ``twograd.graph.symbolic``, PyTorch's is
``twograd.tape``.)
"""
