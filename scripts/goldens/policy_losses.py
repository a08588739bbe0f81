"""Policy and preference losses in float64 with gradients by PyTorch's autograd, from their formulas alone: policy_losses.json.

Every option of the GRPO family that TRL 1.13 lacks (k1 and k2, clamp, dual clip), every option of all eight losses together,
and DPO with label smoothing and IPO.
"""
import itertools
import json
import math
import pathlib

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)  # torch.where of two Python numbers is of this type
T = torch.tensor
NEW = [[-1, -0.5, -2], [-0.7, -1.5, -0.2], [-0.3, -0.9, -1.1], [-2.2, -0.4, -0.6]]
OLD = T([[-1.1, -0.9, -2], [-0.7, -1.2, -0.6], [-0.35, -0.6, -1.4], [-1.7, -0.4, -1]])
REF = T([[-1.2, -0.6, -1.7], [-0.9, -1, -0.3], [-0.5, -0.8, -1], [-2, -0.7, -0.5]])
SAMPLING = T([[-1, -0.95, -2.1], [-0.8, -1.2, -0.5], [-0.3, -0.7, -1.3], [-1.9, -0.4, -1.1]])
MASK = T([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]])
ENTROPY = [[0.9, 0.1, 1.4], [0.3, 1.1, 9], [0.2, 9, 9], [1.6, 0.5, 0.05]]
ADVANTAGES = T([0.75, -0.5, 0.625, -0.875])
MAX_LENGTH = 4
CLIPPING = ["grpo", "bnpo", "dr_grpo", "dapo", "luspo"]
DEFAULTS = {
    "lossType": "dapo", "importanceSampling": "token", "epsilonLow": 0.2, "epsilonHigh": 0.2, "delta": 0, "dualClip": 0, "beta": 0,
    "klEstimator": "k3", "klBiasCorrection": True, "klClamp": 0, "entropyCoef": 0, "topEntropyQuantile": 1, "offPolicyThreshold": None,
    "sapoTemperaturePositive": 1, "sapoTemperatureNegative": 1.05, "vespoKPositive": 2, "vespoLambdaPositive": 3, "vespoKNegative": 3,
    "vespoLambdaNegative": 2, "maxCompletionLength": MAX_LENGTH,
}


def grpo(o, sampled, weighted):
    new, entropy = T(NEW).requires_grad_(), T(ENTROPY).requires_grad_()
    a = ADVANTAGES[:, None]
    tokens = MASK.sum(1, keepdim=True).clamp(min=1)
    log_ratio = new - OLD
    if o["importanceSampling"] == "sequence":
        log_ratio = ((log_ratio * MASK).sum(1, keepdim=True) / tokens).expand_as(new)
    rho = log_ratio.exp()
    kind = o["lossType"]
    weights = torch.exp(OLD - SAMPLING).clamp(max=3) if weighted else torch.ones_like(new)
    weights = torch.where(MASK > 0, weights, torch.ones_like(weights))
    if kind == "cispo":
        loss = -rho.clamp(max=o["epsilonHigh"]).detach() * a * new
    elif kind == "sapo":
        tau = torch.where(a > 0, o["sapoTemperaturePositive"], o["sapoTemperatureNegative"])
        loss = -4 / tau * torch.sigmoid(tau * (rho - 1)) * a
    elif kind == "vespo":
        k = torch.where(a >= 0, o["vespoKPositive"], o["vespoKNegative"])
        lam = torch.where(a >= 0, o["vespoLambdaPositive"], o["vespoLambdaNegative"])
        log_w = ((new - OLD).clamp(-20, 20) * MASK + weights.log()).sum(1, keepdim=True).clamp(math.log(1e-8), 20)
        loss = -torch.exp(lam + k * log_w - lam * log_w.exp()).detach() * a * new
    else:
        free = rho.clamp(max=o["delta"]) if o["delta"] else rho
        loss = torch.max(-free * a, -rho.clamp(1 - o["epsilonLow"], 1 + o["epsilonHigh"]) * a)
        if o["dualClip"]:
            loss = torch.where(a < 0, torch.min(loss, (-o["dualClip"] * a).expand_as(loss)), loss)
    if o["offPolicyThreshold"] is not None:
        drift = (((SAMPLING if sampled else OLD) - new.detach()) * MASK).sum(1, keepdim=True) / tokens
        loss = loss * ((a >= 0) | (drift <= o["offPolicyThreshold"]))
    if o["topEntropyQuantile"] < 1:
        threshold = torch.quantile(entropy.detach()[MASK > 0], 1 - o["topEntropyQuantile"])
        loss = loss * (entropy.detach() >= threshold)
    if kind != "vespo":
        loss = loss * weights
    if o["beta"]:
        d = REF - new
        if o["klClamp"]:
            d = d.clamp(-o["klClamp"], o["klClamp"])
        kl = {"k1": lambda: -d, "k2": lambda: d**2 / 2, "k3": lambda: d.exp() - d - 1}[o["klEstimator"]]()
        loss = loss + o["beta"] * (kl * rho if o["klBiasCorrection"] else kl)
    loss = loss * MASK
    if kind in ("grpo", "sapo"):
        total = (loss.sum(1) / tokens[:, 0]).mean()
    elif kind == "dr_grpo":
        total = loss.sum() / (len(NEW) * MAX_LENGTH)
    elif kind == "luspo":
        total = loss.sum(1).mean()
    else:
        total = loss.sum() / MASK.sum()
    total = total - o["entropyCoef"] * (entropy * MASK).sum() / MASK.sum()
    total.backward()
    zero = torch.zeros_like(entropy)
    return total.item(), new.grad, zero if entropy.grad is None else entropy.grad


def grpo_cases():
    chosen = []
    for estimator, corrected, clamp, level in itertools.product(["k1", "k2", "k3"], [False, True], [0, 0.25], ["token", "sequence"]):
        chosen.append({"lossType": "grpo", "beta": 0.3, "klEstimator": estimator, "klBiasCorrection": corrected, "klClamp": clamp,
                       "importanceSampling": level})
    for kind, level in itertools.product(CLIPPING, ["token", "sequence"]):
        # Both sides of the bound: of the negative advantages one ratio is above 1.3, and none of a sequence.
        chosen.append({"lossType": kind, "importanceSampling": level, "dualClip": 1.3})
        chosen.append({"lossType": kind, "importanceSampling": level, "dualClip": 1.01 if level == "token" else 1.2, "epsilonHigh": 0.05, "delta": 1.4})
    everything = {"beta": 0.2, "klEstimator": "k2", "klClamp": 0.4, "entropyCoef": 0.03, "topEntropyQuantile": 0.6, "offPolicyThreshold": 0.05,
                  "sapoTemperaturePositive": 0.8, "sapoTemperatureNegative": 1.3, "vespoKPositive": 1.5, "vespoLambdaPositive": 2.5,
                  "vespoKNegative": 2.5, "vespoLambdaNegative": 1.5}
    for kind, level in itertools.product([*CLIPPING, "cispo", "sapo", "vespo"], ["token", "sequence"]):
        own = {"dualClip": 1.3} if kind in CLIPPING else {}
        high = {"epsilonHigh": 1.3 if kind == "cispo" else 0.28}
        chosen.append({"lossType": kind, "importanceSampling": level, **high, **own, **everything, "sampled": True, "weighted": True})
        chosen.append({"lossType": kind, "importanceSampling": level, **high, **everything, "klBiasCorrection": False, "sampled": False, "weighted": False})
    cases = []
    for one in chosen:
        sampled, weighted = one.pop("sampled", False), one.pop("weighted", False)
        loss, grad, grad_entropy = grpo(DEFAULTS | one, sampled, weighted)
        cases.append({"options": one, "sampled": sampled, "weighted": weighted, "loss": loss, "gradient": grad.flatten().tolist(),
                      "entropyGradient": grad_entropy.flatten().tolist()})
    return cases


def dpo(kind, beta, smoothing, chosen, rejected):
    new = T(NEW).requires_grad_()
    ratios = ((new - REF) * MASK).sum(1)
    scores = ratios / MASK.sum(1).clamp(min=1) if kind == "ipo" else ratios
    margin = scores[chosen] - scores[rejected]
    if kind == "ipo":
        losses = (margin - 1 / (2 * beta)) ** 2
    else:
        losses = -(1 - smoothing) * F.logsigmoid(beta * margin) - smoothing * F.logsigmoid(-beta * margin)
    losses.mean().backward()
    rewards, logps = beta * ratios.detach(), (new.detach() * MASK).sum(1)
    metrics = {"rewards/chosen": rewards[chosen].mean(), "rewards/rejected": rewards[rejected].mean(),
               "rewards/accuracies": (rewards[chosen] > rewards[rejected]).double().mean(),
               "rewards/margins": (rewards[chosen] - rewards[rejected]).mean(),
               "logps/chosen": logps[chosen].mean(), "logps/rejected": logps[rejected].mean()}
    return {"options": {"loss": kind, "beta": beta, "labelSmoothing": smoothing}, "chosen": chosen, "rejected": rejected,
            "loss": losses.mean().item(), "gradient": new.grad.flatten().tolist(), "metrics": {k: v.item() for k, v in metrics.items()}}


def main():
    pairs = [([0, 2], [1, 3]), ([3], [0]), ([0, 0, 2], [1, 3, 0])]
    kinds = [("sigmoid", 0.1, 0.0), ("sigmoid", 0.1, 0.1), ("sigmoid", 5.0, 0.0), ("sigmoid", 5.0, 0.3), ("ipo", 0.1, 0.0), ("ipo", 2.0, 0.0)]
    inputs = {"logprobs": NEW, "oldLogprobs": OLD.tolist(), "referenceLogprobs": REF.tolist(), "samplingLogprobs": SAMPLING.tolist(),
              "mask": MASK.tolist(), "entropies": ENTROPY, "advantages": ADVANTAGES.tolist()}
    out = {"torch": torch.__version__, "inputs": inputs, "defaults": DEFAULTS, "grpo": grpo_cases(),
           "dpo": [dpo(*kind, *pair) for kind in kinds for pair in pairs]}
    path = pathlib.Path(__file__).parents[2] / "test/goldens/policy_losses.json"
    path.write_text(json.dumps(out, indent=1) + "\n")


main()
