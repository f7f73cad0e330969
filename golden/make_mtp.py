"""A golden DeepSeek-V3 with a multi-token-prediction block, that block's logits, and the gradients of both losses, written out in torch.

    python make_mtp.py [OUT]

transformers ignores the block, so it is written out here (arXiv 2412.19437, equations 21 to 23; the order of the concatenation, and that
the main model's final norm comes before hnorm, as in vLLM's deepseek_mtp.py). Its attention and mixture are transformers' own classes.
"""
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer

import make_golden as golden

here = Path(__file__).parent
source, out = here / "models" / "deepseek_v3-yarn", (Path(sys.argv[1]) if len(sys.argv) > 1 else here) / "mtp"
out.mkdir(parents=True, exist_ok=True)
model, rng = golden.load(source), golden.generator("mtp")
config, hidden = model.config, model.config.hidden_size
block = DeepseekV3DecoderLayer(config, config.num_hidden_layers - 1).eval()
norm = lambda x, weight: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps) * weight
tokens = torch.randint(0, config.vocab_size, (40,), generator=rng)
with torch.no_grad():
    states = model.model(tokens[None, :-1]).last_hidden_state
    for draw in range(2000):
        golden.randomise(block, rng)
        own = {f"{name}.weight": 1 + 0.2 * torch.randn(hidden, generator=rng) for name in ("enorm", "hnorm", "shared_head.norm")}
        own["eh_proj.weight"] = 0.2 * torch.randn(hidden, 2 * hidden, generator=rng)
        margins = []
        hook = block.mlp.gate.register_forward_hook(lambda m, x, _: margins.append(golden.routing(m, x[0])[0]))
        embedded = model.model.embed_tokens(tokens[None, 1:])
        x = torch.cat([norm(embedded, own["enorm.weight"]), norm(states, own["hnorm.weight"])], -1) @ own["eh_proj.weight"].T
        positions = torch.arange(len(tokens) - 1)[None]
        mask = torch.full((1, 1, len(tokens) - 1, len(tokens) - 1), -torch.inf).triu(1)
        x = block(x, attention_mask=mask, position_ids=positions, position_embeddings=model.model.rotary_emb(x, positions))
        logits = model.lm_head(norm(x, own["shared_head.norm.weight"]))[0]
        hook.remove()
        if min(margins) > 2e-4:
            break

# What training learns: mean cross-entropy of the model, and WEIGHT times that of the block, whose last row has no token to predict.
WEIGHT = 0.3
own = {name: torch.nn.Parameter(tensor) for name, tensor in own.items()}
states = model.model(tokens[None, :-1]).last_hidden_state
embedded = model.model.embed_tokens(tokens[None, 1:-1])
x = torch.cat([norm(embedded, own["enorm.weight"]), norm(states[:, :-1], own["hnorm.weight"])], -1) @ own["eh_proj.weight"].T
positions, mask = positions[:, :-1], mask[..., :-1, :-1]
x = block(x, attention_mask=mask, position_ids=positions, position_embeddings=model.model.rotary_emb(x, positions))
ahead = model.lm_head(norm(x, own["shared_head.norm.weight"]))[0]
losses = [torch.nn.functional.cross_entropy(model.lm_head(states)[0], tokens[1:]), torch.nn.functional.cross_entropy(ahead, tokens[2:])]
(losses[0] + WEIGHT * losses[1]).backward()

at = f"model.layers.{config.num_hidden_layers}."
stacked = {f"model.layers.{config.num_hidden_layers - 1}.{n}": t for n, t in block.state_dict().items()}
plain = golden.revert_weight_conversion(model, stacked)
saved = load_file(source / "model.safetensors")
saved |= {at + n.split(".", 3)[3]: t.contiguous().clone() for n, t in plain.items()} | {at + n: t.detach().clone() for n, t in own.items()}
save_file(saved, out / "model.safetensors", metadata={"format": "pt"})
(out / "config.json").write_text((source / "config.json").read_text().replace('"num_nextn_predict_layers": 0', '"num_nextn_predict_layers": 1'))
names = {f"model.layers.{config.num_hidden_layers - 1}.{n}": p.grad for n, p in block.named_parameters()}
grads = golden.revert_weight_conversion(model, {n: p.grad for n, p in model.named_parameters()})
grads |= {at + n.split(".", 3)[3]: g for n, g in golden.revert_weight_conversion(model, names).items()} | {at + n: p.grad for n, p in own.items()}
expected = {"logits": logits} | {f"grad.{n}": g for n, g in grads.items()}
save_file({n: t.contiguous().clone() for n, t in expected.items()}, out / "expected.safetensors")
about = dict(tokens=tokens.tolist(), router_margin=min(margins), draw=draw, weight=WEIGHT, losses=[l.item() for l in losses])
golden.write_json(out / "expected.json", about)
for f in out.iterdir():
    f.chmod(0o644)
