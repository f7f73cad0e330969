"""Writes the golden numbers that minke's tests compare against, with the libraries people would use instead.

    python make_golden.py [OUT] [--only models gguf losses adamw moe]

OUT defaults to this script's folder. It needs torch, transformers, trl, gguf and tokenizers (versions in README.md), runs
offline on one thread in about two minutes, and writes the same bytes each time on the same machine and versions.
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
from transformers import AutoModelForCausalLM, DeepseekV3Config, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config
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
YARN = dict(rope_type="yarn", rope_theta=1000.0, factor=4.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=0.7, original_max_position_embeddings=32)
LINEAR = dict(rope_type="linear", rope_theta=10000.0, factor=4.0)
SMALL = dict(hidden_size=32, vocab_size=50, num_hidden_layers=1)
BASE = dict(max_position_embeddings=256, bos_token_id=0, eos_token_id=1, hidden_size=40, intermediate_size=52, vocab_size=83, num_hidden_layers=2)


def llama(**kw):
    return LlamaConfig(**BASE | dict(num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5) | kw)


def qwen2(**kw):
    return Qwen2Config(**BASE | dict(num_attention_heads=6, num_key_value_heads=2, rms_norm_eps=1e-6) | kw)


def deepseek(**kw):
    mla = dict(num_attention_heads=3, num_key_value_heads=3, q_lora_rank=None, kv_lora_rank=24, qk_nope_head_dim=10, qk_rope_head_dim=6, v_head_dim=14)
    moe = dict(n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2, n_shared_experts=1, moe_intermediate_size=12, first_k_dense_replace=1)
    return DeepseekV3Config(**BASE | mla | moe | dict(num_nextn_predict_layers=0, routed_scaling_factor=2.5) | kw)


# name: (configuration, how it is written). `layout` is "single" or "sharded", `keys` the major version of transformers
# whose configuration keys are written, `dtype` that of the file, `long` adds a sequence of 131 tokens.
CASES = {
    "llama": (llama(), dict(long=True)),
    "llama-tied": (
        llama(hidden_size=36, intermediate_size=44, head_dim=14, num_key_value_heads=1, tie_word_embeddings=True, vocab_size=67),
        dict(keys=4),
    ),
    "llama-rope-llama3": (llama(rope_parameters=LLAMA3, **SMALL), dict(keys=4, long=True)),
    "llama-rope-linear": (llama(num_key_value_heads=4, rope_parameters=LINEAR, **SMALL), dict(keys=4)),
    "llama-bf16": (llama(rope_parameters=LLAMA3, **SMALL), dict(dtype=torch.bfloat16)),
    "llama-sharded": (llama(**SMALL), dict(layout="sharded")),
    "qwen2": (qwen2(hidden_size=36, intermediate_size=44, vocab_size=71, num_hidden_layers=3, tie_word_embeddings=True), dict()),
    "qwen2-untied": (qwen2(hidden_size=36, intermediate_size=44, vocab_size=71), dict(keys=4)),
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
    n, groups = router.num_experts, router.num_group
    choice = (x.reshape(-1, router.hidden_dim) @ router.weight.T).sigmoid() + router.e_score_correction_bias
    score = choice.view(-1, groups, n // groups).topk(2, dim=-1)[0].sum(-1)
    kept = score.topk(router.topk_group, dim=-1)[1]
    mask = torch.zeros_like(score).scatter_(1, kept, 1).bool().repeat_interleave(n // groups, dim=1)

    def margin(v, k):
        v = v.sort(dim=-1, descending=True)[0]
        return torch.inf if k == v.shape[-1] else (v[:, k - 1] - v[:, k]).min().item()

    inf, zero = choice.masked_fill(~mask, -torch.inf), choice.masked_fill(~mask, 0.0)
    chosen = lambda v: v.topk(router.top_k, dim=-1)[1].sort(-1)[0]
    return min(margin(score, router.topk_group), margin(inf, router.top_k)), (chosen(inf) != chosen(zero)).any(-1).sum().item()


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
    c["torch_dtype"] = c.pop("dtype")
    c["transformers_version"] = "4.46.3"
    for key in ("layer_types", "qk_head_dim", "output_router_logits"):
        c.pop(key, None)
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
    for f in out.iterdir():
        f.chmod(0o644)


def make_models(root):
    for name, (config, how) in CASES.items():
        out, rng, how = root / "models" / name, generator(name), dict(how)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        lengths = [40, 5] + ([131] if how.pop("long", False) else [])
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", experts_implementation="eager").eval()
        # Draw again until no router is so nearly undecided that rounding in another implementation could flip its choice.
        for draw in range(2000):
            randomise(model, rng)
            sequences = [torch.randint(0, config.vocab_size, (n,), generator=rng) for n in lengths]
            _, margin, zero_masked = forward(model, sequences)
            if margin is None or (margin > 2e-4 and (zero_masked >= 5 or config.topk_group == config.n_group)):
                break
        else:
            raise RuntimeError(f"{name}: no draw has clear routing margins")
        save_model(model, out, **how)
        write_expected(out, sequences, dict(draw=draw))
        print(f"{name}: draw {draw}, {sum(f.stat().st_size for f in out.iterdir()) / 1e3:.0f} kB")


PARTS = dict(models=make_models)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    for part in args.only:
        PARTS[part](args.out)
