"""Loads adapters that Thimble wrote in PEFT and compares the logits of the last position.

Run: npx tsx scripts/parity/peft-roundtrip.ts DIR && python scripts/parity/peft_roundtrip.py DIR
"""

import json
import sys
from pathlib import Path

import peft
import torch
import transformers


def main(folder):
    given = json.loads((folder / "logits.json").read_text())
    worst = 0.0
    for name, wanted in given["logits"].items():
        model = transformers.AutoModelForCausalLM.from_pretrained(given["base"], dtype=torch.float32)
        model = peft.PeftModel.from_pretrained(model, folder / name).eval()
        with torch.no_grad():
            logits = model(torch.tensor([given["ids"]])).logits[0, -1]
        difference = (logits - torch.tensor(wanted)).abs().max().item()
        worst = max(worst, difference)
        print(f"{name:24} largest difference {difference:.2e} (largest logit {logits.abs().max():.2f})")
    if worst > 1e-3:
        sys.exit("the logits differ")


main(Path(sys.argv[1]))
