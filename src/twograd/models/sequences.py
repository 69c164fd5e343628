"""A language model of characters."""

from typing import Any

from twograd import nn


class CharLSTM(nn.Module):
    """The scores of the next character: (N, T) integers to (N, T, characters), and the LSTM's state."""

    def __init__(self, characters: int, width: int = 128, layers: int = 1):
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, characters)

    def forward(self, codes: Any, state: Any = None) -> tuple[Any, Any]:
        x, state = self.lstm(self.embedding(codes), state)
        return self.head(x), state
