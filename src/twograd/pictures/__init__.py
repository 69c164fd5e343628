"""Pictures of graphs, whatever the graph is of: laid out and drawn here, without Graphviz.

What flows in: a :class:`Picture`, nodes and edges with text. What flows out: a :class:`Drawing`, to be shown or saved.
Read ``picture.py`` first: it is what one says; ``layout.py`` decides where it stands, and ``svg.py`` draws.
"""

from twograd.pictures.drawing import Drawing as Drawing
from twograd.pictures.drawing import Engine as Engine
from twograd.pictures.picture import Edge as Edge
from twograd.pictures.picture import Node as Node
from twograd.pictures.picture import Picture as Picture
from twograd.pictures.picture import printable as printable
