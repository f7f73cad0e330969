"""Converts golden models to GGUF as llama.cpp's converter does, and writes how llama.cpp goes on from some tokens.

    python make_gguf_families.py LLAMA_COMPLETION [OUT]

OUT defaults to this script's folder, where the models are. LLAMA_COMPLETION is llama.cpp's program of that name; it is told never to choose the end
(token 1). The names of
tensors come from gguf-py's own table; the layouts (stacked experts, the split of kv_b_proj with its keys transposed, Llama's
permuted rows, the divisors of Llama 3's RoPE) and the metadata follow conversion/*.py of llama.cpp.
"""
import argparse, json, math, subprocess
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

# Architecture, and whether kv_b_proj is split (converters since 2025) or whole. llama.cpp scores a group of experts by its two best
# whatever the scores are, where DeepSeek-V2 takes its best: it would choose others in deepseek_v2.
MODELS = {"llama-rope-meta": ("llama", False, True), "qwen3": ("qwen3", False, True), "qwen3-yarn": ("qwen3", False, True), "qwen3_moe": ("qwen3moe", False, True),
          "deepseek_v2": ("deepseek2", False, False), "deepseek_v2-lite": ("deepseek2", True, True), "deepseek_v3": ("deepseek2", True, True)}
ARCHITECTURES = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}


def rope_of(c):
    """Base and scaling, from the keys of transformers 4 or 5."""
    rope = c.get("rope_parameters") or c.get("rope_scaling") or {}
    return rope.get("rope_theta", c.get("rope_theta")), rope


def write_metadata(w, c, latent):
    theta, rope = rope_of(c)
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    w.add_block_count(c["num_hidden_layers"])
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(1 if latent else c["num_key_value_heads"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_freq_base(theta)
    w.add_vocab_size(c["vocab_size"])
    if rope.get("rope_type", rope.get("type")) == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(rope["factor"])
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if experts := c.get("n_routed_experts", c.get("num_experts")):
        w.add_expert_count(experts)
        w.add_expert_used_count(c["num_experts_per_tok"])
        w.add_expert_feed_forward_length(c["moe_intermediate_size"])
    if not latent:
        w.add_key_length(c["head_dim"])
        w.add_value_length(c["head_dim"])
        return
    w.add_leading_dense_block_count(c["first_k_dense_replace"])
    # llama.cpp wants the key where a model has no low-rank queries and not the number of blocks of V2-Lite.
    w.add_q_lora_rank(c["q_lora_rank"] or 0)
    w.add_kv_lora_rank(c["kv_lora_rank"])
    w.add_key_length(c["kv_lora_rank"] + c["qk_rope_head_dim"])
    w.add_value_length(c["kv_lora_rank"])
    w.add_key_length_mla(c["qk_nope_head_dim"] + c["qk_rope_head_dim"])
    w.add_value_length_mla(c["v_head_dim"])
    w.add_rope_dimension_count(c["qk_rope_head_dim"])
    if "mscale_all_dim" in rope:
        w.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])
    w.add_expert_shared_count(c["n_shared_experts"])
    w.add_expert_weights_scale(c["routed_scaling_factor"])
    if c["norm_topk_prob"]:
        w.add_expert_weights_norm(True)
    if c.get("n_group"):
        w.add_expert_group_count(c["n_group"])
        w.add_expert_group_used_count(c["topk_group"])
    sigmoid = c["model_type"] == "deepseek_v3"
    w.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID if sigmoid else gguf.ExpertGatingFuncType.SOFTMAX)


def write_vocabulary(w, size):
    """A token for each id, all found in a text as they stand."""
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list([f"<t{i}>" for i in range(size)])
    w.add_token_types([gguf.TokenType.USER_DEFINED] * size)
    w.add_token_merges(["< t"])
    w.add_bos_token_id(0)
    w.add_eos_token_id(1)
    w.add_add_bos_token(False)


def convert(source, path, architecture, split):
    c = json.loads((source / "config.json").read_text())
    latent = architecture == "deepseek2"
    w = gguf.GGUFWriter(path, architecture)
    w.add_name(source.name)
    write_metadata(w, c, latent)
    write_vocabulary(w, c["vocab_size"])
    names = gguf.get_tensor_name_map(ARCHITECTURES[architecture], c["num_hidden_layers"])
    add = lambda name, t: w.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), np.ascontiguousarray(t, dtype=np.float32))
    stacks, heads = {}, c["num_attention_heads"]
    for name, t in load_file(source / "model.safetensors").items():
        if ".mlp.experts." in name:
            block, rest = name.split(".mlp.experts.")
            expert, part = rest.split(".", 1)
            stacks.setdefault(f"{block}.mlp.experts.{part}", {})[int(expert)] = t
        elif name.endswith("kv_b_proj.weight") and split:
            t = t.reshape(heads, c["qk_nope_head_dim"] + c["v_head_dim"], c["kv_lora_rank"])
            add(name.replace("kv_b_proj", "k_b_proj"), t[:, : c["qk_nope_head_dim"]].transpose(0, 2, 1))
            add(name.replace("kv_b_proj", "v_b_proj"), t[:, c["qk_nope_head_dim"] :])
        elif architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            n = heads if "q_proj" in name else c["num_key_value_heads"]
            add(name, t.reshape(n, 2, t.shape[0] // n // 2, -1).swapaxes(1, 2).reshape(t.shape))
        else:
            add(name.replace("e_score_correction_bias", "e_score_correction.bias"), t)
    for name, experts in stacks.items():
        add(name, np.stack([experts[i] for i in range(len(experts))]))
    theta, rope = rope_of(c)
    if rope.get("rope_type") == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_divisors(rope, theta, c["head_dim"]))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def llama3_divisors(rope, theta, width):
    """What Llama 3's rule divides each frequency by."""
    low, high = (rope["original_max_position_embeddings"] / rope[f"{k}_freq_factor"] for k in ("low", "high"))
    divisors = []
    for i in range(0, width, 2):
        length = 2 * math.pi * theta ** (i / width)
        smooth = (rope["original_max_position_embeddings"] / length - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
        divisors.append(1 if length < high else rope["factor"] if length > low else 1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(divisors, dtype=np.float32)


def greedy(program, path, prompt, count):
    """The tokens with which llama.cpp goes on."""
    text = "".join(f"<t{i}>" for i in prompt)
    out = subprocess.run(
        [program, "-m", path, "-p", text, "-n", str(count), "--temp", "0", "--ignore-eos", "-no-cnv", "--no-display-prompt", "--simple-io", "--special",
         "-ctk", "f32", "-ctv", "f32", "-fa", "off", "-c", "256", "-t", "1", "--no-warmup", "--repeat-penalty", "1"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert out.returncode == 0, out.stderr
    return [int(t) for t in out.stdout.replace("<t", " ").replace(">", " ").split() if t.isdigit()][:count]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_completion")
    parser.add_argument("out", nargs="?", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    (args.out / "gguf").mkdir(parents=True, exist_ok=True)
    found = {}
    for name, (architecture, split, comparable) in MODELS.items():
        source, path = Path(__file__).parent / "models" / name, args.out / "gguf" / f"{name}.gguf"
        convert(source, path, architecture, split)
        if comparable:
            prompt = json.loads((source / "expected.json").read_text())["tokens"][0]
            found[name] = dict(prompt=prompt, tokens=greedy(args.llama_completion, path, prompt, 24))
            print(name, found[name]["tokens"])
    lines = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items())
    (args.out / "gguf" / "families.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
