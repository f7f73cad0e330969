"""Rewrites a golden model with FP8 weights as DeepSeek-V3 publishes them, and what torch makes of them.

    python make_fp8.py [OUT]

Matrices inside blocks become F8_E4M3 with a factor for each 16 by 16 block beside them (`weight_scale_inv`; DeepSeek-V3's blocks are
128 by 128, larger than these matrices); the rest becomes BF16. `expected.safetensors` has the products of the two, in f32, by torch.
"""
import json, sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SIDE = 16
here = Path(__file__).parent
source, out = here / "models" / "deepseek_v3-yarn", (Path(sys.argv[1]) if len(sys.argv) > 1 else here) / "fp8"
out.mkdir(parents=True, exist_ok=True)
tensors, expected = {}, {}
for name, t in load_file(source / "model.safetensors").items():
    if not name.endswith("_proj.weight") and ".kv_a_proj_with_mqa" not in name:
        tensors[name] = t.to(torch.bfloat16) if "e_score" not in name else t
        continue
    rows, columns = t.shape
    spread = lambda s: s.repeat_interleave(SIDE, 0)[:rows].repeat_interleave(SIDE, 1)[:, :columns]
    padded = torch.nn.functional.pad(t, (0, -columns % SIDE, 0, -rows % SIDE))
    largest = padded.view(padded.shape[0] // SIDE, SIDE, padded.shape[1] // SIDE, SIDE).abs().amax((1, 3))
    factors = (largest / 448).contiguous()
    quantised = (t / spread(factors)).to(torch.float8_e4m3fn)
    if not expected:  # Every byte that stands for a number, zeros of both signs and subnormals among them.
        every = torch.arange(256, dtype=torch.uint8)
        quantised.view(torch.uint8).view(-1)[:254] = every[(every & 127) != 127]
    tensors[name], tensors[f"{name}_scale_inv"] = quantised, factors
    expected[name] = quantised.float() * spread(factors)
save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
save_file(expected, out / "expected.safetensors")
config = json.loads((source / "config.json").read_text())
config["quantization_config"] = dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8", weight_block_size=[SIDE, SIDE])
(out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
