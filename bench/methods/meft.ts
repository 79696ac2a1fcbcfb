/**
 * How wrong MEFT's gradients are by depth, in each of its modes, against the same network differentiated with all values
 * kept; and what backward's streams lose on their way. Random models of width 16 in f32, by the interpreter; keeps what
 * it finds in bench/results/meft.json: `npx tsx bench/methods/meft.ts`.
 */
import { fileURLToPath } from "node:url";
import { writeJsonAtomically } from "../../src/io/atomic.js";
import { deepModel, GradientStep, relativeNorm } from "../../src/testing/reversible.js";
import { describeMachine } from "../machine.js";

const path = fileURLToPath(new URL("../results/meft.json", import.meta.url));

/** Relative Euclidean errors: of all gradients together, and of the streams at the start of a segment. */
interface Row {
  readonly norms: string;
  readonly variant: string;
  readonly mode: string;
  readonly layers: number;
  readonly segments: number;
  readonly gradientError: number;
  readonly inverseError: number;
}

const rounded = (value: number): number => Number(value.toPrecision(2));

function measure(norms: "pre-norm" | "post-norm", variant: string, mode: string, layers: number): Row {
  const model = deepModel(norms, layers);
  const step = (more: Record<string, unknown>): GradientStep =>
    new GradientStep(model, [{ id: "meft", settings: { f_arch: variant, mode, ...more } }]);
  const made = step({});
  const { segments } = made;
  const lost = segments.map((segment) => {
    const { start, back } = made.inverse(segment);
    return relativeNorm(back, start);
  });
  return {
    ...{ norms, variant, mode, layers, segments: segments.length },
    gradientError: rounded(relativeNorm(made.gradient(), step({ num_rev_layers: 0 }).gradient())),
    inverseError: rounded(Math.max(...lost)),
  };
}

const rows = (["pre-norm", "post-norm"] as const).flatMap((norms) =>
  ["layer", "adapter", "attn"].flatMap((variant) =>
    [1, 2, 3, 4, 6, 12].flatMap((layers) =>
      ["faithful", "segmented", "exact"].map((mode) => measure(norms, variant, mode, layers)),
    ),
  ),
);
await writeJsonAtomically(path, { machine: describeMachine(), rows });
for (const { norms, variant, mode, layers, segments, gradientError, inverseError } of rows) {
  console.log(
    norms,
    variant,
    mode,
    layers,
    `${segments} segments`,
    `gradient ${gradientError}, streams ${inverseError}`,
  );
}
