"""Distillation losses of a small head against a teacher's, and their gradients, by torch autograd.

    python make_distillation.py [OUT]

The loss of a case is the mean over rows of kl times KL(teacher || student) plus 1 - kl times the cross-entropy of the target, at
temperature 1: that of arXiv 1503.02531, and with kl = 1 of TRL's GKD with beta = 0.
"""
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

torch.set_num_threads(1)


def floats(tensor):
    """Nested lists of the shortest decimals that read back as the same f32."""
    return [floats(row) for row in tensor] if tensor.dim() else float(str(np.float32(tensor.item())))


cases = []
for rows, vocabulary, inputs, wide, scale, kl in [(5, 83, 9, 14, 1.0, 1.0), (5, 83, 9, 14, 1.0, 0.5), (4, 1100, 3, 2, 3.0, 0.9), (3, 7, 5, 5, 1.0, 0.0)]:
    rng = torch.Generator().manual_seed(zlib.crc32(f"distillation {rows} {vocabulary}".encode()))
    draw = lambda *shape: torch.randn(*shape, generator=rng)
    teacher_head, teacher_hidden = scale * draw(vocabulary, wide), draw(rows, wide)
    head, hidden = (scale * draw(vocabulary, inputs)).requires_grad_(), draw(rows, inputs).requires_grad_()
    targets = torch.randint(0, vocabulary, (rows,), generator=rng)
    log_q, log_p = F.log_softmax(hidden @ head.T, -1), F.log_softmax(teacher_hidden @ teacher_head.T, -1)
    divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    loss = (kl * divergence + (1 - kl) * F.nll_loss(log_q, targets, reduction="none")).mean()
    loss.backward()
    cases.append(dict(kl=kl, targets=targets.tolist(), head=floats(head.detach()), hidden=floats(hidden.detach()),
                      teacher_head=floats(teacher_head), teacher_hidden=floats(teacher_hidden), divergence=floats(divergence.detach()),
                      loss=floats(loss.detach()), d_head=floats(head.grad), d_hidden=floats(hidden.grad)))
out = (Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent) / "losses"
out.mkdir(parents=True, exist_ok=True)
lines = (f'"case.{i}": {json.dumps(case)}' for i, case in enumerate(cases))
(out / "distillation.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
