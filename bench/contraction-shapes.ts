/** The products of a training step of SmolLM2-135M (30 blocks), by what is computed, and how often a step has each. */

export type Layout = "X W^T" | "G W" | "G^T X";
export type Direction = "forward" | "input gradient" | "weight gradient" | "adapter";

export interface Shape {
  readonly direction: Direction;
  readonly layout: Layout;
  readonly rows: number;
  readonly columns: number;
  /** K of each segment. */
  readonly depths: readonly number[];
  readonly count: number;
}

const [hidden, small, wide, rank] = [576, 192, 1536, 16];

/** Products of one step at so many tokens: full tuning's, then what LoRA adds on all linear layers. */
export function shapes(tokens: number): Shape[] {
  const linears = [
    { out: hidden, width: hidden, count: 60 },
    { out: small, width: hidden, count: 60 },
    { out: wide, width: hidden, count: 60 },
    { out: hidden, width: wide, count: 30 },
  ];
  const shape = (
    direction: Direction,
    layout: Layout,
    [rows, columns]: readonly [number, number],
    depths: number[],
    count: number,
  ): Shape => ({
    ...{ direction, layout, rows, columns, depths, count },
  });
  return [
    ...linears.map(({ out, width, count }) => shape("forward", "X W^T", [tokens, out], [width], count)),
    ...linears.map(({ out, width, count }) => shape("forward", "X W^T", [tokens, out], [width, rank], count)),
    shape("input gradient", "G W", [tokens, hidden], [hidden], 30),
    shape("input gradient", "G W", [tokens, wide], [hidden, rank], 30),
    shape("input gradient", "G W", [tokens, hidden], [wide, wide], 30),
    shape("input gradient", "G W", [tokens, hidden], [wide, rank, wide, rank], 30),
    shape("input gradient", "G W", [tokens, hidden], [hidden, rank, small, rank, small, rank], 30),
    ...linears.map(({ out, width, count }) => shape("weight gradient", "G^T X", [out, width], [tokens], count)),
    ...linears.map(({ width, count }) => shape("adapter", "X W^T", [tokens, rank], [width], count)),
    ...linears.map(({ out, count }) => shape("adapter", "G W", [tokens, rank], [out], count)),
    ...linears.map(({ width, count }) => shape("adapter", "G^T X", [rank, width], [tokens], count)),
    ...linears.map(({ out, count }) => shape("adapter", "G^T X", [out, rank], [tokens], count)),
  ];
}

/** Floating-point operations of one call. */
export function operations({ rows, columns, depths }: Shape): number {
  return 2 * rows * columns * depths.reduce((sum, depth) => sum + depth, 0);
}
