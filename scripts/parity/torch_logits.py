"""Logits of models and adapters in transformers and peft, for python.ts.

  python torch_logits.py REQUESTS.json OUT

REQUESTS.json: a list of {name, model, gguf?, adapter?, make?, ids, text?}, see python.ts. Writes OUT/NAME.f32 (float32
logits of every position, one after the other) for each and prints one line: {NAME: ids of its text, or null}.
"""
import json
import sys
from pathlib import Path

import peft
import torch
import transformers


def load(request):
    options = {"gguf_file": request["gguf"]} if "gguf" in request else {}
    model = transformers.AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32, **options)
    if "make" in request:
        torch.manual_seed(9)
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **request["make"]))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name or "magnitude" in name:
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        model.save_pretrained(request["adapter"])
    elif "adapter" in request:
        model = peft.PeftModel.from_pretrained(model, request["adapter"])
    # In f64, so that what is left of a difference is the other side's rounding.
    return model.eval().to(torch.float64), options


def main(requests, out):
    transformers.utils.logging.set_verbosity_error()
    encoded = {}
    for request in json.loads(requests.read_text()):
        model, options = load(request)
        with torch.no_grad():
            logits = model(torch.tensor([request["ids"]])).logits[0].float()
        (out / (request["name"] + ".f32")).write_bytes(logits.contiguous().numpy().tobytes())
        encoded[request["name"]] = None
        if "text" in request:
            tokenizer = transformers.AutoTokenizer.from_pretrained(request["model"], **options)
            encoded[request["name"]] = tokenizer(request["text"])["input_ids"]
    print(json.dumps(encoded))


main(Path(sys.argv[1]), Path(sys.argv[2]))
