"""Writes the golden numbers that minke's tests compare against, with the libraries people would use instead.

    python make_golden.py [OUT] [--only models gguf losses adamw moe] [--models NAME ...]

OUT defaults to this script's folder. It needs torch, transformers, trl, gguf and tokenizers (versions in README.md), runs
offline on one thread in about ten seconds, and writes the same bytes each time on the same machine and versions.
No formula that is checked is written here twice: logits and gradients come from transformers' own classes and autograd,
losses from TRL's GRPOTrainer, dequantised values from gguf-py, optimiser steps from torch. The one exception is the
sequence balance loss (moe), which no library has.
"""
import argparse, json, os, shutil, tempfile, zlib
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")
import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models as tokenizer_models, pre_tokenizers, trainers
from transformers import (AutoModelForCausalLM, DeepseekV2Config, DeepseekV3Config, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config,
                          Qwen3MoeConfig)
from transformers.core_model_loading import revert_weight_conversion

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


def generator(name):
    """A random generator that depends on `name` alone, so that one golden can change without moving the others."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def write_json(path, value):
    """One line per top-level key."""
    lines = (f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in value.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def floats(tensor):
    """Nested lists of the shortest decimals that read back as the same f32."""
    if tensor.dim():
        return [floats(row) for row in tensor]
    return float(str(np.float32(tensor.item())))


# ---------------------------------------------------------------------------------------------------- models

LLAMA3 = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
META = LLAMA3 | dict(rope_theta=500000.0, original_max_position_embeddings=8192)
YARN = dict(rope_type="yarn", rope_theta=1000.0, factor=4.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=0.7, original_max_position_embeddings=32)
YARN_QWEN = dict(rope_type="yarn", rope_theta=1000.0, factor=4.0, original_max_position_embeddings=32)
LINEAR = dict(rope_type="linear", rope_theta=10000.0, factor=4.0)
SMALL = dict(hidden_size=32, vocab_size=50, num_hidden_layers=1)
BASE = dict(max_position_embeddings=256, bos_token_id=0, eos_token_id=1, hidden_size=40, intermediate_size=52, vocab_size=83, num_hidden_layers=2)


def llama(**kw):
    return LlamaConfig(**BASE | dict(num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5) | kw)


def qwen2(**kw):
    return Qwen2Config(**BASE | dict(num_attention_heads=6, num_key_value_heads=2, rms_norm_eps=1e-6) | kw)


def qwen3(**kw):
    return Qwen3Config(**BASE | dict(num_attention_heads=4, num_key_value_heads=2, head_dim=14, rms_norm_eps=1e-3) | kw)


def qwen3_moe(**kw):
    moe = dict(num_experts=8, num_experts_per_tok=3, moe_intermediate_size=12, norm_topk_prob=True)
    return Qwen3MoeConfig(**BASE | dict(num_attention_heads=4, num_key_value_heads=2, head_dim=10, rms_norm_eps=1e-6) | moe | kw)


def deepseek_v2(**kw):
    mla = dict(num_attention_heads=4, num_key_value_heads=4, q_lora_rank=None, kv_lora_rank=20, qk_nope_head_dim=10, qk_rope_head_dim=6, v_head_dim=14)
    moe = dict(n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=2, moe_intermediate_size=12, first_k_dense_replace=1, norm_topk_prob=False)
    return DeepseekV2Config(**BASE | mla | moe | kw)


def deepseek(**kw):
    mla = dict(num_attention_heads=3, num_key_value_heads=3, q_lora_rank=None, kv_lora_rank=24, qk_nope_head_dim=10, qk_rope_head_dim=6, v_head_dim=14)
    moe = dict(n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2, n_shared_experts=1, moe_intermediate_size=12, first_k_dense_replace=1)
    return DeepseekV3Config(**BASE | mla | moe | dict(num_nextn_predict_layers=0, routed_scaling_factor=2.5) | kw)


# name: (configuration, how it is written). `layout` is "single" or "sharded", `keys` the major version of transformers
# whose configuration keys are written, `dtype` that of the file, `long` adds a sequence of 131 tokens, `chat` a tokenizer.
CASES = {
    "llama": (llama(), dict(long=True)),
    "llama-tied": (
        llama(hidden_size=36, intermediate_size=44, head_dim=14, num_key_value_heads=1, tie_word_embeddings=True, vocab_size=67),
        dict(keys=4),
    ),
    "llama-rope-llama3": (llama(rope_parameters=LLAMA3, **SMALL), dict(keys=4, long=True)),
    "llama-rope-meta": (llama(rope_parameters=META, max_position_embeddings=16384, **SMALL), dict(keys=4)),
    "llama-rope-linear": (llama(num_key_value_heads=4, rope_parameters=LINEAR, **SMALL), dict(keys=4)),
    "llama-bf16": (llama(rope_parameters=LLAMA3, **SMALL), dict(dtype=torch.bfloat16)),
    "llama-sharded": (llama(**SMALL), dict(layout="sharded")),
    "qwen2": (qwen2(hidden_size=36, intermediate_size=44, vocab_size=71, num_hidden_layers=3, tie_word_embeddings=True), dict()),
    "qwen2-untied": (qwen2(hidden_size=36, intermediate_size=44, vocab_size=71), dict(keys=4)),
    "llama-chat": (llama(hidden_size=24, intermediate_size=36, vocab_size=300, bos_token_id=0, eos_token_id=2), dict(chat=True)),
    "qwen3": (qwen3(hidden_size=36, intermediate_size=44, vocab_size=71, tie_word_embeddings=True), dict(keys=4)),
    "qwen3-yarn": (qwen3(rope_parameters=YARN_QWEN, num_key_value_heads=1, **SMALL), dict(long=True)),
    "qwen3_moe": (qwen3_moe(vocab_size=50), dict(keys=4)),
    "qwen3_moe-plain": (qwen3_moe(norm_topk_prob=False, num_experts=6, num_experts_per_tok=2, **SMALL), dict()),
    "deepseek_v2": (
        deepseek_v2(q_lora_rank=18, qk_rope_head_dim=8, topk_method="group_limited_greedy", n_group=4, topk_group=2, routed_scaling_factor=6.0,
                    rope_parameters=YARN | dict(mscale=0.707, mscale_all_dim=0.707), vocab_size=50),
        dict(keys=4, long=True),
    ),
    "deepseek_v2-lite": (deepseek_v2(rope_parameters=YARN | dict(mscale=0.707, mscale_all_dim=0.707), vocab_size=50), dict()),
    "deepseek_v3": (deepseek(num_hidden_layers=3), dict(long=True)),
    "deepseek_v3-qlora": (
        deepseek(hidden_size=36, q_lora_rank=18, kv_lora_rank=8, qk_nope_head_dim=12, v_head_dim=10, n_routed_experts=16, num_experts_per_tok=4,
                 n_shared_experts=2, norm_topk_prob=False, rms_norm_eps=1e-2, num_nextn_predict_layers=1),
        dict(keys=4, layout="sharded"),
    ),
    "deepseek_v3-tied": (
        deepseek(rope_interleave=False, tie_word_embeddings=True, n_group=1, topk_group=1, first_k_dense_replace=0, num_attention_heads=4, num_key_value_heads=4,
                 moe_intermediate_size=10, routed_scaling_factor=1.0),
        dict(),
    ),
    "deepseek_v3-yarn": (
        deepseek(q_lora_rank=20, kv_lora_rank=16, qk_rope_head_dim=8, n_group=2, topk_group=1, n_routed_experts=6, num_experts_per_tok=2,
                 norm_topk_prob=False, rope_parameters=YARN, hidden_size=32, vocab_size=50),
        dict(keys=4, long=True),
    ),
}


def randomise(model, rng):
    """Weights at a scale where every part matters: matrices N(0, 0.2), embeddings N(0, 0.5), norms around 1, biases not zero."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=rng)
            if "norm" in name:
                p.copy_(1 + 0.2 * noise)
            else:
                p.copy_(noise * (0.5 if "embed_tokens" in name else 0.3 if name.endswith("bias") else 0.2))
        for name, b in model.named_buffers():
            if name.endswith("e_score_correction_bias"):  # mixed signs; mostly below zero, so that masking with 0 would choose wrongly
                b.copy_(torch.rand(b.shape, generator=rng) * 1.2 - 0.9)


def routing(router, x):
    """Of a forward pass through one router: the narrowest margin of its choices, and for how many tokens masking the groups
    left out with 0 rather than -inf would have chosen other experts."""
    n, logits = router.num_experts, x.reshape(-1, router.hidden_dim) @ router.weight.T
    groups, kept_groups = getattr(router, "num_group", None) or 1, getattr(router, "topk_group", None) or 1
    if hasattr(router, "e_score_correction_bias"):
        choice = logits.sigmoid() + router.e_score_correction_bias
        score = choice.view(-1, groups, n // groups).topk(2, dim=-1)[0].sum(-1)
    else:
        choice = logits.softmax(-1)
        score = choice.view(-1, groups, n // groups).max(-1)[0]
    kept = score.topk(kept_groups, dim=-1)[1]
    mask = torch.zeros_like(score).scatter_(1, kept, 1).bool().repeat_interleave(n // groups, dim=1)

    def margin(v, k):
        v = v.sort(dim=-1, descending=True)[0]
        return torch.inf if k == v.shape[-1] else (v[:, k - 1] - v[:, k]).min().item()

    inf, zero = choice.masked_fill(~mask, -torch.inf), choice.masked_fill(~mask, 0.0)
    chosen = lambda v: v.topk(router.top_k, dim=-1)[1].sort(-1)[0]
    return min(margin(score, kept_groups), margin(inf, router.top_k)), (chosen(inf) != chosen(zero)).any(-1).sum().item()


def forward(model, sequences):
    """Logits of each sequence alone, and what the routers did."""
    seen = []
    hooks = [m.register_forward_hook(lambda m, x, _: seen.append(routing(m, x[0]))) for n, m in model.named_modules() if n.endswith("mlp.gate")]
    with torch.no_grad():
        logits = [model(s[None], use_cache=False).logits[0] for s in sequences]
    for h in hooks:
        h.remove()
    return logits, min((m for m, _ in seen), default=None), sum(z for _, z in seen)


def load(directory):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager").eval()


def write_transformers_4(path):
    """Rewrites a configuration that transformers 5 wrote with the keys of transformers 4 and of the files on the Hub."""
    c = json.loads(path.read_text())
    rope = c.pop("rope_parameters")
    c["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    # Llama 3.1 onwards says rope_type; older files, and DeepSeek-V3's, say type.
    c["rope_scaling"] = None if kind == "default" else {"rope_type" if kind == "llama3" else "type": kind, **rope}
    if "num_local_experts" in c:
        c["num_experts"] = c.pop("num_local_experts")
    c["torch_dtype"] = c.pop("dtype")
    c["transformers_version"] = "4.46.3"
    for key in ("layer_types", "qk_head_dim", "output_router_logits"):
        c.pop(key, None)
    if c["model_type"] == "deepseek_v2":
        for key in ("head_dim", "mlp_bias", "pad_token_id"):
            c.pop(key, None)
        c |= dict(scoring_func="softmax", moe_layer_freq=1, ep_size=1, aux_loss_alpha=0.001, seq_aux=True,
                  auto_map={"AutoConfig": "configuration_deepseek.DeepseekV2Config"})
    if c["model_type"] == "deepseek_v3":
        for key in ("head_dim", "rope_interleave", "pad_token_id"):
            c.pop(key)
        c |= dict(scoring_func="sigmoid", topk_method="noaux_tc", moe_layer_freq=1, ep_size=1, aux_loss_alpha=0.001, seq_aux=True,
                  auto_map={"AutoConfig": "configuration_deepseek.DeepseekV3Config"})
    path.write_text(json.dumps(c, indent=2, sort_keys=True) + "\n")


def save_model(model, out, layout="single", keys=5, dtype=torch.float32):
    model.to(dtype).save_pretrained(out, max_shard_size="40KB" if layout == "sharded" else "1GB")
    (out / "generation_config.json").unlink(missing_ok=True)
    if keys == 4:
        write_transformers_4(out / "config.json")


def write_expected(out, sequences, meta):
    """Loads the directory as anyone would and writes what it computes: expected.json and expected.safetensors."""
    model = load(out)
    logits, margin, zero_masked = forward(model, sequences)
    tensors = {f"logits.{i}": l.contiguous() for i, l in enumerate(logits)}
    losses = [torch.nn.functional.cross_entropy(l[:-1], s[1:]).item() for l, s in zip(logits, sequences)]
    s = sequences[0]
    torch.nn.functional.cross_entropy(model(s[None], use_cache=False).logits[0, :-1], s[1:]).backward()
    grads = revert_weight_conversion(model, {n: p.grad for n, p in model.named_parameters()})
    tensors |= {f"grad.{n}": g.contiguous().clone() for n, g in grads.items()}
    assert all(torch.isfinite(t).all() for t in tensors.values())
    save_file(tensors, out / "expected.safetensors")
    if margin is not None:
        meta = meta | dict(router_margin=margin, tokens_where_masking_with_zero_is_wrong=zero_masked)
    write_json(out / "expected.json", dict(tokens=[s.tolist() for s in sequences], loss=losses, **meta))


CORPUS = """The whale lifted its head above the water and thought for a while before it answered. What is 17 plus 25? First the tens:
10 and 20 are 30; then the ones: 7 and 5 are 12; so 30 + 12 = 42. The answer is 42. What is the answer? That is what the other whale
wanted to know, and the first one said that it did not know what the answer was, but that it would think about it."""
CHAT_TEMPLATE = (
    r"{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' + '\n' }}{% endfor %}"
    r"{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONVERSATIONS = [
    [dict(role="user", content="What is 17 plus 25?")],
    [dict(role="system", content="Answer briefly."), dict(role="user", content=" Hello "), dict(role="assistant", content="<think>\n</think>Hi!"),
     dict(role="user", content="naïve café 東京 🐋")],
]
TEXTS = ["", " ", "The whale thought about the answer.", "  two  spaces   three", "line\n\nbreaks\r\n\ttab ", "it's we'll I'D can't", "1234 12.5 ½ ²", "naïve café e\u0301",
         "東京 🐋👨‍👩‍👧 ру́сский", "<|im_start|>user\nhi<|im_end|>", "<think>17+25=42</think>", "<|im_start |> <think", "\x00\x7f\u200b\u00a0\ufeff", "x" * 33]


def write_tokenizer(out, vocab_size):
    """A byte-level BPE of every byte, three control tokens, two added plain ones, and merges learned from CORPUS; with a chat template."""
    tok = Tokenizer(tokenizer_models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    added = ["<think>", "</think>"]
    tok.train_from_iterator([CORPUS], trainers.BpeTrainer(
        vocab_size=vocab_size - len(added), show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"]))
    tok.add_tokens(added)
    assert tok.get_vocab_size() == vocab_size
    hf = PreTrainedTokenizerFast(tokenizer_object=tok, bos_token="<|endoftext|>", eos_token="<|im_end|>", unk_token="<|endoftext|>")
    hf.chat_template = CHAT_TEMPLATE
    hf.save_pretrained(out)
    render = lambda c, g: dict(messages=c, add_generation_prompt=g, text=hf.apply_chat_template(c, tokenize=False, add_generation_prompt=g))
    write_json(out / "expected-text.json", dict(
        tokens=[dict(text=t, ids=hf(t).input_ids, decoded=hf.decode(hf(t).input_ids)) for t in TEXTS],
        chat=[render(c, g) for c in CONVERSATIONS for g in (True, False)]))


def make_models(root, names=CASES):
    for name in names:
        config, how = CASES[name]
        out, rng, how = root / "models" / name, generator(name), dict(how)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        lengths, chat = [40, 5] + ([131] if how.pop("long", False) else []), how.pop("chat", False)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", experts_implementation="eager").eval()
        # Draw again until no router is so nearly undecided that rounding in another implementation could flip its choice.
        for draw in range(2000):
            randomise(model, rng)
            sequences = [torch.randint(0, config.vocab_size, (n,), generator=rng) for n in lengths]
            _, margin, zero_masked = forward(model, sequences)
            # Softmax scores are above 0, so that masking with 0 chooses the same.
            masks = config.model_type == "deepseek_v3" and config.topk_group < config.n_group
            if margin is None or (margin > 2e-4 and (zero_masked >= 5 or not masks)):
                break
        else:
            raise RuntimeError(f"{name}: no draw has clear routing margins")
        save_model(model, out, **how)
        if chat:
            write_tokenizer(out, config.vocab_size)
        write_expected(out, sequences, dict(draw=draw))
        print(f"{name}: draw {draw}, {sum(f.stat().st_size for f in out.iterdir()) / 1e3:.0f} kB")


# ------------------------------------------------------------------------------------------------------ gguf

METADATA = dict(UINT8=200, INT8=-100, UINT16=60000, INT16=-30000, UINT32=4000000000, INT32=-2000000000, FLOAT32=0.5, BOOL=True, STRING="naïve 🐋",
                UINT64=2**63 + 1, INT64=-(2**62), FLOAT64=0.1)
ARRAYS = dict(strings=["a", "", "ü"], ints=[1, -2, 3], floats=[0.5, -1.5], bools=[True, False], empty_text=[""])
BLOCK = {"q8_0": (32, 34), "q4_0": (32, 18), "q4_1": (32, 20)}  # values, bytes


def edge_blocks(kind, rng):
    """Raw blocks that a quantiser would hardly write: every nibble or byte at random, scales from zero to the largest f16."""
    scales = np.array([0.0, -0.0, 6e-8, -6e-8, 6e-5, 1.0, -1.0, 0.1, 65504.0, -65504.0], dtype=np.float16)
    raw = rng.integers(0, 256, (2 * len(scales), BLOCK[kind][1]), dtype=np.uint8)
    raw[:, 0:2] = np.concatenate([scales, scales])[:, None].view(np.uint8)
    if kind == "q4_1":
        raw[:, 2:4] = np.concatenate([scales[::-1], np.roll(scales, 3)])[:, None].view(np.uint8)
    return raw.reshape(4, -1)


def gguf_types(out):
    """One tensor of each type, with what gguf-py makes of it in f32; and a metadata value of each type."""
    rng = np.random.default_rng(7)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    w = gguf.GGUFWriter(out / "types.gguf", "golden")
    w.add_custom_alignment(64)
    for kind, value in METADATA.items():
        w.add_key_value(f"golden.{kind.lower()}", value, gguf.GGUFValueType[kind])
    for key, value in ARRAYS.items():
        w.add_array(f"golden.array.{key}", value)
    tensors = {}

    def add(name, kind, raw):
        w.add_tensor(name, raw, raw_dtype=None if kind in ("f32", "f16") else gguf.GGMLQuantizationType[kind.upper()])
        tensors[name] = torch.from_numpy(np.array(gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind.upper()]), dtype=np.float32))

    f32, f16 = normal(5, 7), normal(3, 33).astype(np.float16)
    f32[0] = [0.0, -0.0, 1e-45, -1e-40, 3.4028235e38, -3.4028235e38, 1.1754944e-38]
    f16[0, :8] = [0.0, -0.0, 6e-8, -6e-8, 6.1e-5, 65504.0, -65504.0, 0.1]
    bf16 = (normal(3, 17).view(np.uint32) >> 16).astype(np.uint16)
    bf16[0, :6] = [0x0000, 0x8000, 0x0001, 0x8001, 0x7F7F, 0xFF7F]
    add("f32", "f32", f32)
    add("f16", "f16", f16)
    add("bf16", "bf16", bf16.view(np.uint8))
    for kind in BLOCK:
        quantise = lambda x: gguf.quants.quantize(x, gguf.GGMLQuantizationType[kind.upper()])
        rows = normal(4, 96)
        rows[1] *= 1e-4
        rows[2, :32], rows[2, 32:64], rows[3, :32] = 0.0, 1.0, -np.abs(rows[3, :32]) * 1000
        add(kind, kind, quantise(rows))
        add(f"{kind}.edge", kind, edge_blocks(kind, rng))
        add(f"{kind}.stacked", kind, quantise(normal(2, 3, 32)))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    assert all(torch.isfinite(t).all() for t in tensors.values())
    save_file(tensors, out / "types.safetensors")
    write_json(out / "types.json", {f"golden.{k.lower()}": v for k, v in METADATA.items()} | {f"golden.array.{k}": v for k, v in ARRAYS.items()})


def gguf_model(source, path):
    """The model of `source` as llama.cpp's converter would write it: its names, its order of the rotated rows of q and k."""
    from safetensors.torch import load_file

    c, tok = json.loads((source / "config.json").read_text()), json.loads((source / "tokenizer.json").read_text())
    w = gguf.GGUFWriter(path, "llama")
    w.add_name("golden llama")
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    w.add_block_count(c["num_hidden_layers"])
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_freq_base(c["rope_parameters"]["rope_theta"])
    w.add_rope_dimension_count(c["head_dim"])
    w.add_vocab_size(c["vocab_size"])
    ids = tok["model"]["vocab"] | {t["content"]: t["id"] for t in tok["added_tokens"]}
    kind = {t["id"]: gguf.TokenType.CONTROL if t["special"] else gguf.TokenType.USER_DEFINED for t in tok["added_tokens"]}
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(sorted(ids, key=ids.get))
    w.add_token_types([kind.get(i, gguf.TokenType.NORMAL) for i in range(len(ids))])
    w.add_token_merges([" ".join(m) for m in tok["model"]["merges"]])
    w.add_bos_token_id(c["bos_token_id"])
    w.add_eos_token_id(c["eos_token_id"])
    w.add_add_bos_token(False)
    w.add_chat_template((source / "chat_template.jinja").read_text())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c["num_hidden_layers"])
    for name, t in load_file(source / "model.safetensors").items():
        for key, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if key in name:  # halves (0..d/2, d/2..d) to pairs (2i, 2i+1)
                t = t.reshape(c[heads], 2, c["head_dim"] // 2, -1).transpose(1, 2).reshape(t.shape)
        w.add_tensor(names.get_name(name, try_suffixes=(".weight",)), t.contiguous().numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def make_gguf(root):
    out = root / "gguf"
    out.mkdir(parents=True, exist_ok=True)
    gguf_types(out)
    gguf_model(root / "models" / "llama-chat", out / "llama-chat.gguf")


# ---------------------------------------------------------------------------------------------------- losses

GROUPS, GENERATIONS, LONGEST = 4, 4, 10
REWARDS = [1, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0.5, -0.25, 2, 0]  # the third group has no variance
LENGTHS = [3, 10, 1, 7, 10, 4, 5, 2, 6, 6, 6, 6, 9, 1, 8, 10]
SETTINGS = [dict(loss_type=t, scale_rewards=s, epsilon=0.2, epsilon_high=0.28) for t in ("grpo", "bnpo", "dr_grpo", "dapo") for s in ("group", "none")]
SETTINGS += [dict(loss_type=t, scale_rewards="none", epsilon=0.1, epsilon_high=0.3, micro_batches=2) for t in ("grpo", "bnpo", "dr_grpo", "dapo")]
SETTINGS += [dict(loss_type="dapo", scale_rewards="batch", epsilon=0.2, epsilon_high=0.28)]
SETTINGS += [dict(loss_type="dr_grpo", scale_rewards="none", epsilon=0.2, epsilon_high=0.2, beta=0.04, use_bias_correction_kl=b) for b in (False, True)]
SETTINGS += [dict(loss_type="bnpo", scale_rewards="none", epsilon=0.2, epsilon_high=0.28, micro_batches=4)]
SETTINGS += [dict(loss_type="cispo", scale_rewards=s, epsilon=0.2, epsilon_high=1.2, micro_batches=m) for s, m in (("group", 1), ("none", 2))]
SEQUENCE = dict(scale_rewards="none", epsilon=0.02, importance_sampling_level="sequence")
SETTINGS += [dict(loss_type=t, epsilon_high=1.03 if t == "cispo" else 0.03, micro_batches=m, **SEQUENCE)
             for t in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo") for m in (1, 2)]
SETTINGS += [dict(loss_type=t, scale_rewards="none", epsilon=0.2, epsilon_high=1.2 if t == "cispo" else 0.28, beta=0.04, use_bias_correction_kl=True)
             for t in ("grpo", "bnpo", "dapo", "cispo")]
SETTINGS += [dict(loss_type=t, epsilon_high=0.03, beta=0.04, use_bias_correction_kl=b, **SEQUENCE) for t in ("grpo", "dapo") for b in (False, True)]
TRUNCATED = dict(scale_rewards="group", mask_truncated_completions=True, micro_batches=2)
SETTINGS += [dict(loss_type=t, epsilon=0.1, epsilon_high=1.1 if t == "cispo" else 0.1, **TRUNCATED) for t in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo")]
SETTINGS += [TRUNCATED | SEQUENCE | dict(loss_type="grpo", epsilon_high=0.03, beta=0.04, use_bias_correction_kl=True)]


def make_losses(root):
    """TRL's GRPOTrainer itself, on completions, rewards and log-probabilities that are given to it; only the model is replaced."""
    import warnings
    warnings.filterwarnings("ignore")
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
    from trl.trainer.grpo_trainer import split_tensor_dict

    rng = generator("losses")
    shape = (GROUPS * GENERATIONS, LONGEST)
    lengths = torch.tensor(LENGTHS)[:, None]
    mask = (torch.arange(LONGEST) < lengths).int()
    old = -torch.rand(shape, generator=rng) * 4
    ref = old + 0.2 * torch.randn(shape, generator=rng)
    # The logps of successive updates over one batch of rollouts: at first the ratio is 1 everywhere, then it drifts past both clips.
    updates = [old, old + 0.15 * torch.randn(shape, generator=rng), old + 0.5 * torch.randn(shape, generator=rng)]

    class Scripted(GRPOTrainer):
        """A trainer whose model returns the log-probabilities it is told to."""

        def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
            return self.scripted_ref if model is self.ref_model else self.scripted, torch.zeros(self.scripted.shape), None

    def trainer(source, work, setting):
        micro = setting.pop("micro_batches", 1)
        config = GRPOConfig(
            output_dir=work, use_cpu=True, bf16=False, report_to=[], per_device_train_batch_size=GROUPS * GENERATIONS // micro, gradient_accumulation_steps=micro,
            steps_per_generation=micro, num_iterations=len(updates), num_generations=GENERATIONS, max_completion_length=LONGEST, **setting)
        # Completions end by themselves, but for those that fill their limit.
        completion = lambda t, n: [7] * n if n == LONGEST else [7] * (n - 1) + [t.eos_token_ids[0]]
        scripted_rollouts = lambda prompts, t: dict(
            prompt_ids=[[5, 6]] * len(prompts), completion_ids=[completion(t, n) for n in LENGTHS], logprobs=[[0.0] * n for n in LENGTHS])
        t = Scripted(model=str(source), args=config, train_dataset=Dataset.from_list([dict(prompt="a")] * GROUPS),
                     reward_funcs=lambda completions, **kw: REWARDS, rollout_func=scripted_rollouts)
        t.model.train()
        t.current_gradient_accumulation_steps = micro
        return t, micro

    cases = []
    with tempfile.TemporaryDirectory() as work:
        for setting in SETTINGS:
            t, micro = trainer(root / "models" / "llama-chat", work, dict(setting))
            t.scripted, t.scripted_ref = old, ref
            batch = t._generate_and_score_completions([dict(prompt="a")] * GROUPS * GENERATIONS)
            kept = mask * (lengths < LONGEST) if setting.get("mask_truncated_completions") else mask
            assert torch.equal(batch["completion_mask"], kept) and torch.equal(batch["old_per_token_logps"], old)
            results = []
            for logps in updates:
                loss, grads = 0.0, []
                for part, piece in zip(split_tensor_dict(batch, micro), logps.chunk(micro)):
                    t.scripted = piece.clone().requires_grad_()
                    value = t._compute_loss(t.model, part)
                    value.backward()
                    loss, grads = loss + value.detach(), grads + [t.scripted.grad]
                results.append(dict(loss=floats(loss), grad=floats(torch.cat(grads))))
            cases.append(setting | dict(advantages=floats(batch["advantages"]), updates=results))
    out = root / "losses"
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "grpo.json", dict(
        num_generations=GENERATIONS, max_completion_length=LONGEST, rewards=REWARDS, mask=mask.tolist(), old_logps=floats(old), ref_logps=floats(ref),
        logps=[floats(u) for u in updates], **{f"case.{i}": c for i, c in enumerate(cases)}))


# ----------------------------------------------------------------------------------------------------- adamw

def make_adamw(root):
    """Steps of torch.optim.AdamW in f32 on one vector, with weight decay, a changing learning rate and, in the last case, clipping."""
    rng = generator("adamw")
    start, grads = torch.randn(11, generator=rng), torch.randn(6, 11, generator=rng) * torch.tensor([1.0, 1e-4, 30.0, 1.0, 0.0, 1.0])[:, None]
    rates = [1e-2, 1e-2, 3e-2, 3e-3, 1e-2, 1e-1]
    cases = [dict(betas=[0.9, 0.999], eps=1e-8, weight_decay=0.01), dict(betas=[0.9, 0.95], eps=1e-8, weight_decay=0.1),
             dict(betas=[0.9, 0.95], eps=1e-6, weight_decay=0.0), dict(betas=[0.9, 0.95], eps=1e-8, weight_decay=0.1, max_grad_norm=1.0)]
    for case in cases:
        p = torch.nn.Parameter(start.clone())
        optimiser = torch.optim.AdamW([p], lr=1.0, betas=tuple(case["betas"]), eps=case["eps"], weight_decay=case["weight_decay"], foreach=False)
        steps = []
        for rate, g in zip(rates, grads):
            p.grad, step = g.clone(), {}
            if "max_grad_norm" in case:
                step["grad_norm"] = floats(torch.nn.utils.clip_grad_norm_([p], case["max_grad_norm"]))
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
            steps.append(dict(weights=floats(p.detach())) | step)
        case["steps"] = steps
    out = root / "adamw"
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "adamw.json", dict(start=floats(start), rates=rates, grads=floats(grads), **{f"case.{i}": c for i, c in enumerate(cases)}))


# ------------------------------------------------------------------------------------------------------- moe

def sequence_balance_loss(logits, chosen, top_k, alpha):
    """DeepSeek-V3 (arXiv 2412.19437) equations 17 to 20 for one sequence: logits [tokens, experts], chosen 0/1 of the same shape."""
    tokens, experts = logits.shape
    s = logits.sigmoid()
    f = experts / (top_k * tokens) * chosen.sum(0)  # 18; counts, no gradient
    p = (s / s.sum(-1, keepdim=True)).mean(0)  # 19 and 20
    return alpha * (f * p).sum()  # 17


def make_moe(root):
    """The balance loss of two sequences, averaged, and its gradient. The paper counts the top k of the bare affinities
    (`chosen_by: affinity`); `given` has counts as a router with biases and groups would make them."""
    rng = generator("moe")
    top_k, alpha, cases = 3, 0.5, []
    for lengths, chosen_by in (([9, 4], "affinity"), ([9, 4], "given"), ([1], "affinity")):
        logits = [(1.5 * torch.randn(n, 8, generator=rng) + torch.linspace(-1, 1, 8)).requires_grad_() for n in lengths]
        by = logits if chosen_by == "affinity" else [torch.rand(x.shape, generator=rng) for x in logits]
        chosen = [torch.zeros(x.shape).scatter_(1, b.detach().topk(top_k, dim=-1)[1], 1.0) for x, b in zip(logits, by)]
        losses = [sequence_balance_loss(x, c, top_k, alpha) for x, c in zip(logits, chosen)]
        loss = torch.stack(losses).mean()
        loss.backward()
        cases.append(dict(chosen_by=chosen_by, logits=[floats(x.detach()) for x in logits], chosen=[c.int().tolist() for c in chosen],
                          loss_per_sequence=[floats(l.detach()) for l in losses], loss=floats(loss.detach()), grad=[floats(x.grad) for x in logits]))
    out = root / "moe"
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "sequence_balance.json", dict(top_k=top_k, alpha=alpha, **{f"case.{i}": c for i, c in enumerate(cases)}))


PARTS = dict(models=make_models, gguf=make_gguf, losses=make_losses, adamw=make_adamw, moe=make_moe)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", choices=CASES, help="only these models, and nothing else")
    args = parser.parse_args()
    if args.models:
        make_models(args.out, args.models)
    else:
        for part in args.only:
            PARTS[part](args.out)
    for f in args.out.rglob("*.safetensors"):
        f.chmod(0o644)
