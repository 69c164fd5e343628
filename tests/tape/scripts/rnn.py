"""A recurrent cell in a Python loop, and an LSTM cell; gates by chunk, states by stack and unbind."""

import numpy as np
import torch

rng = np.random.RandomState(3)
T, B, I, H = 5, 2, 3, 4


def weight(*shape):
    w = torch.empty(*shape)
    w.copy_(torch.from_numpy(rng.uniform(-0.5, 0.5, size=shape)))
    return w.requires_grad_(True)


xs = torch.tensor(rng.randn(T, B, I), dtype=torch.float32)
w_ih, w_hh, bias = weight(H, I), weight(H, H), weight(H)
h = xs.new_zeros(B, H)
states = []
for x in xs:
    h = torch.tanh(torch.mm(x, w_ih.t()) + torch.mm(h, w_hh.t()) + bias)
    states.append(h)
rnn_out = torch.stack(states)

u_ih, u_hh, u_b = weight(4 * H, I), weight(4 * H, H), weight(4 * H)
h, c = torch.zeros(B, H), torch.zeros(B, H)
outputs = []
for x in torch.unbind(xs, dim=0):
    gates = torch.nn.functional.linear(x, u_ih, u_b) + h @ u_hh.T
    i, f, g, o = gates.chunk(4, dim=1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), torch.sigmoid(o)
    c = f * c + i * g
    h = o * c.tanh()
    outputs.append(h.unsqueeze(0))
lstm_out = torch.cat(outputs, dim=0)

lengths = torch.tensor([5, 3])
mask = torch.arange(T)[:, None] < lengths[None, :]
loss = (lstm_out[-1] ** 2).mean() + rnn_out.masked_fill(~mask.unsqueeze(-1), 0.0).sum() / mask.sum()
loss.backward()
print(rnn_out.size(), tuple(lstm_out.shape), mask.int().sum(0).tolist(), f"{loss:.4f}")
results = [loss, rnn_out, lstm_out, w_ih.grad, w_hh.grad, bias.grad, u_ih.grad, u_hh.grad, u_b.grad]
