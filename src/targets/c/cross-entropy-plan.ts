import type { CrossEntropySizes, CrossEntropySpec, WeightGradientSpec } from "./cross-entropy-types.js";

/** Vocabulary rows whose logits exist at once: a multiple of the tile's rows and of 2. */
export const vocabularyBlock = 192;
const groupBytes = 600_000;
const decodedGroupBytes = 1_200_000;
const fewTokens = 512;
const mostSlices = 16;

/** Bytes that x and the sums of dx of one group of tokens may take of the second-level cache. */
function groupBudget(spec: WeightGradientSpec): number {
  return spec.weight.decoder === undefined ? groupBytes : decodedGroupBytes;
}

function bytesPerValue(spec: CrossEntropySpec): number {
  return spec.inputGradient === undefined ? 4 : 8;
}

/**
 * The blocking, as C; {@link crossEntropyWorkspace} mirrors it. With few tokens the vocabulary is cut into slices
 * (their number depends on N alone), so that many threads have work. Areas are in words of 4 bytes.
 */
export function planSource(name: string, spec: CrossEntropySpec): string {
  const gradient = spec.inputGradient === undefined ? 0 : 1;
  return String.raw`
typedef struct {
  int64_t padded, tokens, slices, panels, weights, scores, sums, states, partial, private;
} ${name}_plan;
static ${name}_plan ${name}_make_plan(int64_t N, int64_t depth) {
  ${name}_plan p;
  p.padded = (depth + 15) / 16 * 16;
  p.tokens = larger(64, smaller(256, ${groupBudget(spec)} / (p.padded * ${bytesPerValue(spec)}) / 64 * 64));
  p.slices = larger(1, smaller(${mostSlices}, (${fewTokens} + N - 1) / larger(N, 1)));
  p.states = (N * (2 + 2 * p.slices) + 15) / 16 * 16;
  p.partial = ${gradient} && p.slices > 1 ? p.slices * N * p.padded : 0;
  p.panels = p.tokens * p.padded;
  p.weights = ${vocabularyBlock} * p.padded;
  p.scores = ${vocabularyBlock} * p.tokens + 16;
  p.sums = ${gradient} * (p.tokens + 6) * p.padded;
  p.private = p.panels + p.weights * 2 + p.scores + p.sums + p.padded;
  return p;
}`;
}

function roundUp(value: number, granule: number): number {
  return Math.ceil(value / granule) * granule;
}

/** Exact bytes of the workspace argument for one call; it needs no particular alignment beyond 4 bytes. */
export function crossEntropyWorkspace(spec: CrossEntropySpec, sizes: CrossEntropySizes, threads: number): number {
  const { rows } = sizes;
  const padded = roundUp(sizes.depth, 16);
  const tokens = Math.max(
    64,
    Math.min(256, Math.floor(Math.floor(groupBudget(spec) / (padded * bytesPerValue(spec))) / 64) * 64),
  );
  const slices = Math.max(1, Math.min(mostSlices, Math.ceil(fewTokens / Math.max(rows, 1))));
  const gradient = spec.inputGradient === undefined ? 0 : 1;
  const states = roundUp(rows * (2 + 2 * slices), 16);
  const partial = gradient === 1 && slices > 1 ? slices * rows * padded : 0;
  const scores = vocabularyBlock * tokens + 16;
  const sums = gradient * (tokens + 6) * padded;
  const own = tokens * padded + 2 * vocabularyBlock * padded + scores + sums + padded;
  return (states + partial + threads * own) * 4 + 64;
}

/** The blocking of dW, as C; {@link weightGradientWorkspace} mirrors it. */
export function weightGradientPlan(name: string, spec: WeightGradientSpec): string {
  return String.raw`
typedef struct {
  int64_t padded, tokens, list, panels, weights, scores, sums, private;
} ${name}_plan;
static ${name}_plan ${name}_make_plan(int64_t N, int64_t depth) {
  ${name}_plan p;
  p.padded = (depth + 15) / 16 * 16;
  p.tokens = larger(64, smaller(256, ${groupBudget(spec)} / (p.padded * 8) / 64 * 64));
  p.list = (N + 15) / 16 * 16;
  p.panels = p.tokens * p.padded;
  p.weights = ${vocabularyBlock} * p.padded;
  p.scores = ${vocabularyBlock} * p.tokens + 16;
  p.sums = ${vocabularyBlock} * p.padded;
  p.private = p.panels * 2 + p.weights + p.scores + p.sums;
  return p;
}`;
}

/** Exact bytes of the workspace argument of the kernel of dW; it needs no particular alignment beyond 4 bytes. */
export function weightGradientWorkspace(spec: WeightGradientSpec, sizes: CrossEntropySizes, threads: number): number {
  const padded = roundUp(sizes.depth, 16);
  const group = Math.floor(Math.floor(groupBudget(spec) / (padded * 8)) / 64) * 64;
  const tokens = Math.max(64, Math.min(256, group));
  const own = 2 * tokens * padded + 2 * vocabularyBlock * padded + vocabularyBlock * tokens + 16;
  return (roundUp(sizes.rows, 16) + threads * own) * 4 + 64;
}
