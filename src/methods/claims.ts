import { ThimbleError } from "../errors.js";
import type { Claim, ResolvedMethod } from "./types.js";

const words: Readonly<Record<Claim["resource"], string>> = {
  "base-weights": "the base weights",
  "base-format": "how the base weights are stored",
  "weight-delta": "what is added to a weight",
  gradients: "the gradients",
  stack: "how the blocks are chained",
  "input-rows": "the rows that the first block reads",
  "saved-values": "the values kept for the backward pass",
  moments: "the optimizer's states",
  "trainable-set": "which tensors train",
  estimator: "how gradients are made",
  "sample-ids": "the identities of examples",
  batches: "which examples enter a batch",
  placement: "where weights and states live",
  objective: "what is minimised",
};

/** The tensor both claims are about: a name, "" for the whole model, undefined for none. */
function overlap(a: Claim, b: Claim): string | undefined {
  if (a.tensors === undefined) return b.tensors === undefined ? "" : b.tensors[0];
  if (b.tensors === undefined) return a.tensors[0];
  const names = new Set(a.tensors);
  return b.tensors.find((name) => names.has(name));
}

function refuse(first: ResolvedMethod, a: Claim, second: ResolvedMethod, b: Claim, tensor: string): never {
  throw new ThimbleError("methods-conflict", `${first.id} and ${second.id} do not go together`, {
    given:
      `${first.id} needs ${words[a.resource]} for itself because it ${a.reason}; ` +
      `${second.id} does because it ${b.reason}`,
    expected: `one of them${tensor === "" ? "" : `, or each on tensors of its own (both claim ${tensor})`}`,
    where: "methods",
    fix: `Remove ${first.id} or ${second.id}.`,
  });
}

/** Refuses two methods that both claim a resource for themselves, with the reasons of both. */
export function checkClaims(methods: readonly ResolvedMethod[]): void {
  methods.forEach((second, place) => {
    for (const first of methods.slice(0, place)) {
      for (const a of first.claims.filter((claim) => claim.exclusive)) {
        for (const b of second.claims) {
          const tensor = b.exclusive && a.resource === b.resource ? overlap(a, b) : undefined;
          if (tensor !== undefined) refuse(first, a, second, b, tensor);
        }
      }
    }
  });
}
