"""What reference packages make of numbers that Thimble gives them: one request a call, JSON in a file, JSON out."""

import base64
import json
import sys

import torch


def floats(text):
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.float32).clone()


def text(tensor):
    return base64.b64encode(tensor.contiguous().cpu().numpy().tobytes()).decode()


def nf4(request):
    from bitsandbytes.functional import quantize_4bit

    codes, state = quantize_4bit(
        floats(request["values"]), blocksize=64, quant_type="nf4", compress_statistics=True
    )
    return {
        "codes": text(codes.flatten()),
        "absmax": text(state.absmax),
        "nested": text(state.state2.absmax),
        "offset": text(state.offset.reshape(1).float()),
    }


def galore(request):
    from galore_torch import GaLoreAdamW

    shape = request["shape"]
    weight = torch.nn.Parameter(floats(request["start"]).reshape(shape))
    group = {"params": [weight], "rank": request["rank"], "update_proj_gap": request["gap"], "scale": 0.25, "proj_type": "std"}
    optimizer = GaLoreAdamW([group], lr=request["rate"], weight_decay=request["decay"], no_deprecation_warning=True)
    for gradient in request["gradients"]:
        weight.grad = floats(gradient).reshape(shape)
        optimizer.step()
    return {"value": text(weight.detach().flatten())}


def float8(request):
    values = floats(request["values"])
    types = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
    return {name: text(values.to(dtype).view(torch.uint8)) for name, dtype in types.items()}


def sparse_adam(request):
    """Adam on chosen entries of a weight, dense: the gradient of all others is masked."""
    start, indices = floats(request["start"]), torch.tensor(request["indices"])
    delta = torch.nn.Parameter(torch.zeros_like(start))
    mask = torch.zeros_like(start)
    mask[indices] = 1
    optimizer = torch.optim.Adam([delta], lr=request["rate"])
    for gradient in request["gradients"]:
        delta.grad = floats(gradient) * mask
        optimizer.step()
    return {"value": text(delta.detach()[indices])}


with open(sys.argv[1]) as file:
    asked = json.load(file)
print(json.dumps(globals()[asked["kind"]](asked)))
