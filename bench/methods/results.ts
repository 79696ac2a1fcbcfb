/** What `bench/methods/matrix.ts` finds, and where it keeps it. */
import { fileURLToPath } from "node:url";

export const matrixPath = fileURLToPath(new URL("../results/methods.json", import.meta.url));
export const precisions = ["f32", "bf16"] as const;
export const targets = ["c", "interpret"] as const;

export type Outcome =
  | { readonly outcome: "ran" }
  | { readonly outcome: "refused"; readonly code: string; readonly reason: string }
  | { readonly outcome: "failed"; readonly reason: string };

/** One method, or two together, for two steps. */
export type Attempt = Outcome & {
  readonly methods: readonly string[];
  readonly family: string;
  readonly dtype: string;
  readonly target: string;
};

export interface MethodMatrix {
  readonly machine: unknown;
  readonly rows: readonly Attempt[];
}
