"""A network whose structure is its input's: a binary tree-structured LSTM (Tai et al., 2015, arXiv:1503.00075)."""

from typing import Any, NamedTuple, TypeAlias

from twograd import nn

Tree: TypeAlias = "int | tuple[Tree, Tree]"
"""A word's number, or two trees."""


class State(NamedTuple):
    h: Any
    c: Any


class TreeLSTM(nn.Module):
    """Scores (classes,) of a :data:`Tree`: leaves from words, each inner node from its two children.

    A node has one forget gate per child: i, f_left, f_right, o, u of both children's h. In a trace the structure of a
    tree is the program's own, and its words may be inputs.
    """

    def __init__(self, words: int, classes: int, width: int = 32):
        super().__init__()
        self.width = width
        self.words = nn.Embedding(words, width)
        self.leaf = nn.Linear(width, 3 * width)
        self.left = nn.Linear(width, 5 * width)
        self.right = nn.Linear(width, 5 * width, bias=False)
        self.head = nn.Linear(width, classes)

    def forward(self, tree: Any) -> Any:
        return self.head(self.state(tree).h)

    def state(self, tree: Any) -> State:
        """The state at the root; without recursion, for a tree may be as deep as it likes."""
        done: list[State] = []
        stack = [(tree, False)]
        while stack:
            node, children_done = stack.pop()
            if not isinstance(node, tuple):
                done.append(self._of_word(node))
            elif children_done:
                right, left = done.pop(), done.pop()
                done.append(self._of_children(left, right))
            else:
                stack += [(node, True), (node[1], False), (node[0], False)]
        return done[0]

    def _of_word(self, word: Any) -> State:
        vectors: Any = self.words.weight
        i, o, u = self.leaf(vectors[word]).chunk(3)  # a word may be traced
        c = i.sigmoid() * u.tanh()
        return State(o.sigmoid() * c.tanh(), c)

    def _of_children(self, left: State, right: State) -> State:
        i, f_left, f_right, o, u = (self.left(left.h) + self.right(right.h)).chunk(5)
        c = i.sigmoid() * u.tanh() + f_left.sigmoid() * left.c + f_right.sigmoid() * right.c
        return State(o.sigmoid() * c.tanh(), c)
