"""Losses of the PyTorch stack on the yardstick's data, for scripts/parity/losses.ts to compare with.

  python torch_losses.py METHOD DATA OUT [--steps 5]

METHOD: full | lora. DATA: the folder that the yardstick's prepare.py wrote. For lora, OUT/adapter receives the
adapter before its first step (B = 0, PyTorch's random A) in PEFT's format. Prints one JSON line {"losses": [...]}.
"""
import argparse, json, os

import numpy as np, torch, transformers
from transformers import AutoModelForCausalLM

p = argparse.ArgumentParser()
p.add_argument("method", choices=["full", "lora"]); p.add_argument("data"); p.add_argument("out")
p.add_argument("--steps", type=int, default=5); p.add_argument("--batch", type=int, default=4)
p.add_argument("--seq", type=int, default=256)
a = p.parse_args()
transformers.utils.logging.set_verbosity_error()
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(a.data + "/smollm2", dtype=torch.float32, attn_implementation="sdpa")
model.config.use_cache = False
if a.method == "lora":
    import peft
    linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules=linears, lora_dropout=0.0, task_type="CAUSAL_LM"))
    model.save_pretrained(os.path.join(a.out, "adapter"))
model.train()
optimizer = torch.optim.AdamW([q for q in model.parameters() if q.requires_grad], lr=1e-4, weight_decay=0.0)
tokens = np.fromfile(a.data + "/tokens.u16", dtype="<u2").astype(np.int64)
losses = []
for step in range(a.steps):
    ids = torch.from_numpy(tokens[step * a.batch * a.seq:(step + 1) * a.batch * a.seq].reshape(a.batch, a.seq))
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward(); optimizer.step(); optimizer.zero_grad(set_to_none=True)
    losses.append(float(loss))
print(json.dumps({"losses": losses}))
