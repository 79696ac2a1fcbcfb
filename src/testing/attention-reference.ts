/** Attention in plain f64 loops, straight from its definition: what the kernels are tested against. */
export interface ReferenceCase {
  readonly batch: number;
  readonly queries: number;
  readonly keys: number;
  readonly heads: number;
  readonly keyHeads: number;
  readonly headSize: number;
  readonly scale: number;
  readonly causal: boolean;
  readonly window: number;
  readonly offset: number | undefined;
  readonly segments: Int32Array | undefined;
  readonly query: Float32Array;
  readonly key: Float32Array;
  readonly value: Float32Array;
}

/** Whether query i sees key j. */
function sees(c: ReferenceCase, batch: number, i: number, j: number): boolean {
  const position = i + (c.offset ?? 0);
  if (c.offset !== undefined && j >= c.offset + c.queries) return false;
  if (c.causal && j > position) return false;
  if (c.window > 0 && position - j >= c.window) return false;
  if (c.segments === undefined) return true;
  const own = c.segments[batch * c.keys + position];
  return own === -1 ? j === position : own === c.segments[batch * c.keys + j];
}

export interface ReferenceResult {
  readonly output: Float64Array;
  readonly logSumExp: Float64Array;
  readonly queryGradient: Float64Array;
  readonly keyGradient: Float64Array;
  readonly valueGradient: Float64Array;
}

/** Forward and, for the gradient `outputGradient` of the output, backward. */
export function referenceAttention(c: ReferenceCase, outputGradient: Float32Array): ReferenceResult {
  const { batch, queries, keys, heads, keyHeads, headSize: size } = c;
  const result = {
    output: new Float64Array(c.query.length),
    logSumExp: new Float64Array(batch * heads * queries),
    queryGradient: new Float64Array(c.query.length),
    keyGradient: new Float64Array(c.key.length),
    valueGradient: new Float64Array(c.key.length),
  };
  const dot = (a: ArrayLike<number>, atA: number, b: ArrayLike<number>, atB: number): number => {
    let sum = 0;
    for (let d = 0; d < size; d++) sum += (a[atA + d] ?? NaN) * (b[atB + d] ?? NaN);
    return sum;
  };
  const add = (target: Float64Array, at: number, factor: number, source: ArrayLike<number>, from: number): void => {
    for (let d = 0; d < size; d++) target[at + d] = (target[at + d] ?? NaN) + factor * (source[from + d] ?? NaN);
  };
  for (let row = 0; row < batch * heads * queries; row++) {
    const i = row % queries;
    const head = Math.floor(row / queries) % heads;
    const b = Math.floor(row / queries / heads);
    const at = ((b * queries + i) * heads + head) * size;
    const keyHead = Math.floor(head / (heads / keyHeads));
    const visible = Array.from({ length: keys }, (_, j) => j).filter((j) => sees(c, b, i, j));
    const places = visible.map((j) => ((b * keys + j) * keyHeads + keyHead) * size);
    const scores = places.map((place) => dot(c.query, at, c.key, place) * c.scale);
    const most = Math.max(...scores);
    const logSumExp =
      scores.length === 0 ? -Infinity : most + Math.log(scores.reduce((sum, s) => sum + Math.exp(s - most), 0));
    result.logSumExp[row] = logSumExp;
    const weighted = places.map((place, index) => [place, Math.exp((scores[index] ?? NaN) - logSumExp)] as const);
    for (const [place, weight] of weighted) add(result.output, at, weight, c.value, place);
    const delta = dot(outputGradient, at, result.output, at);
    for (const [place, weight] of weighted) {
      const slope = weight * (dot(outputGradient, at, c.value, place) - delta) * c.scale;
      add(result.valueGradient, place, weight, outputGradient, at);
      add(result.keyGradient, place, slope, c.query, at);
      add(result.queryGradient, at, slope, c.key, place);
    }
  }
  return result;
}
