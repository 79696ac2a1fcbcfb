import type { ModelDefinition } from "../src/models/types.js";

/** Rank of the adapters that the yardstick trains, on all linear layers. */
const loraRank = 16;

/**
 * Floating-point operations that one token of a step cannot do without: two for each weight it meets, in forward, and
 * again for the gradient of the layer's input and, where the weight trains, of the weight; attention sees half of the
 * row on average, and its backward pass has five products for the forward pass's two. Recomputation does not count.
 */
export function flopsPerToken(definition: ModelDefinition, method: string, seq: number): number {
  const { linears, vocabularySize, width } = definition;
  const weights = linears.reduce((sum, { inputs, outputs }) => sum + inputs * outputs, vocabularySize * width);
  const queries = linears.filter(({ role }) => role === "query").reduce((sum, { outputs }) => sum + outputs, 0);
  const attention = 2 * seq * queries;
  const forward = 2 * weights + attention;
  const adapters = linears.reduce((sum, { inputs, outputs }) => sum + loraRank * (inputs + outputs), 0);
  switch (method) {
    case "forward":
      return forward;
    case "mezo":
      return 2 * forward;
    case "lora":
    case "qlora":
      return forward + 2 * weights + 2.5 * attention + 6 * adapters;
    default:
      return forward + 4 * weights + 2.5 * attention;
  }
}
