#!/usr/bin/env python3
"""One tensor of each type whose blocks gguf-py reads but doesn't all write, with what it makes of it in f32.

    python make_blocks.py [OUT]

OUT defaults to this script's folder. It needs gguf and safetensors (versions in README.md). Blocks are random bytes, since every
byte is a block's; only the halves that scale it are chosen: from zero of both signs and subnormals to the largest, so that a
rounding too few or too many shows."""
import pathlib, sys

import gguf
import numpy as np
from safetensors.numpy import save_file

# Where a type's blocks hold their halves.
HALVES = {"Q5_0": [0], "Q5_1": [0, 2], "IQ4_NL": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
SCALES = np.array([0.0, -0.0, 6e-8, -6e-8, 6e-5, 1.0, -1.0, 0.1, 0.333, -0.0123, 300.0, 65504.0, -65504.0], dtype=np.float16)


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent) / "gguf"
    rng = np.random.default_rng(11)
    writer, tensors = gguf.GGUFWriter(out / "blocks.gguf", "golden"), {}
    for name, halves in HALVES.items():
        kind = gguf.GGMLQuantizationType[name]
        size = gguf.GGML_QUANT_SIZES[kind][1]
        raw = rng.integers(0, 256, (len(SCALES), size), dtype=np.uint8)
        for i, at in enumerate(halves):
            raw[:, at:at + 2] = np.roll(SCALES, 5 * i)[:, None].view(np.uint8)
        writer.add_tensor(name, raw, raw_dtype=kind)
        tensors[name] = gguf.quants.dequantize(raw, kind).astype(np.float32)
        assert np.isfinite(tensors[name]).all()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(tensors, out / "blocks.safetensors")


if __name__ == "__main__":
    main()
