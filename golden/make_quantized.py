#!/usr/bin/env python3
"""What other quantisers make of one tensor: gguf-py's blocks, and llama.cpp's errors where gguf-py has no quantiser.

    python make_quantized.py LLAMA_QUANTIZE [OUT]

LLAMA_QUANTIZE is llama.cpp's llama-quantize; OUT defaults to this script's folder. It needs gguf and numpy. The tensor has rows of
512 of different spreads, with outliers, of one sign and of zeros, as weights do and don't come."""
import json, pathlib, struct, subprocess, sys, tempfile

import gguf
import numpy as np

BLOCKS = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]
SEARCHED = {"IQ4_NL": "IQ4_NL", "Q2_K": "Q2_K", "Q3_K": "Q3_K_S", "Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S", "Q6_K": "Q6_K"}


def rows():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((12, 512)) * np.geomspace(1e-3, 4, 12)[:, None]
    x[3] = rng.standard_t(3, 512) * 0.05
    x[4, ::37] *= 12
    x[5] = np.abs(x[5]) + 0.1
    x[6] = -np.abs(x[6])
    x[7, :256] = 0
    x[8] *= np.repeat(rng.lognormal(0, 1, 16), 32)
    return x.astype(np.float32)


def searched(quantize, x, importance):
    """Mean squares of errors, weighed by importance, of the types that llama.cpp searches scales for."""
    errors = {}
    with tempfile.TemporaryDirectory() as folder:
        writer = gguf.GGUFWriter(f"{folder}/in.gguf", "llama")
        writer.add_block_count(1), writer.add_context_length(64), writer.add_embedding_length(512)
        writer.add_feed_forward_length(12), writer.add_head_count(8), writer.add_layer_norm_rms_eps(1e-5)
        # No rule gives this one more bits than the file's type says.
        writer.add_tensor("blk.0.ffn_up.weight", x)
        writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
        options = []
        if importance is not None:
            name = b"blk.0.ffn_up.weight"
            entry = struct.pack(f"<ii{len(name)}sii{len(importance)}f", 1, len(name), name, 1, len(importance), *importance)
            pathlib.Path(f"{folder}/imatrix.dat").write_bytes(entry + struct.pack("<ii", 1, 4) + b"none")
            options = ["--imatrix", f"{folder}/imatrix.dat"]
        for name, file_type in SEARCHED.items():
            subprocess.run([quantize, *options, f"{folder}/in.gguf", f"{folder}/out.gguf", file_type], check=True, capture_output=True)
            [tensor] = gguf.GGUFReader(f"{folder}/out.gguf").tensors
            assert tensor.tensor_type.name == name, tensor
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(x.shape).astype(np.float64)
            errors[name] = [float(e) for e in (((values - x) ** 2) * (1 if importance is None else importance)).mean(axis=1)]
    return errors


def main(quantize, out):
    x = rows()
    importance = np.random.default_rng(6).lognormal(0, 1.5, 512).astype(np.float32)
    writer = gguf.GGUFWriter(out / "gguf/quantized.gguf", "golden")
    writer.add_tensor("F32", x), writer.add_tensor("importance", importance)
    for name in BLOCKS:
        kind = gguf.GGMLQuantizationType[name]
        writer.add_tensor(name, gguf.quants.quantize(x, kind), raw_dtype=kind)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    errors = {"plain": searched(quantize, x, None), "weighed": searched(quantize, x, importance)}
    (out / "gguf/quantized.json").write_text(json.dumps(errors, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else pathlib.Path(__file__).parent))
