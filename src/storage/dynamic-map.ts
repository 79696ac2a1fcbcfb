/** bitsandbytes' 8-bit "dynamic" types, with and without a sign: 256 levels, finer towards zero (arXiv 1511.04561). */

const round = Math.fround;

/** torch.linspace(0.1, 1, count) in f32. */
function spaced(count: number): number[] {
  const [start, end] = [round(0.1), 1];
  const step = round(round(end - start) / (count - 1));
  const half = Math.floor(count / 2);
  return Array.from({ length: count }, (_, index) =>
    index < half ? round(start + step * index) : round(end - step * (count - 1 - index)),
  );
}

/**
 * For every exponent i = 0..6 the middles of 2^i equal cells of [0.1, 1] (without a sign: of twice as many), times
 * 10^(i-6), with both signs; 0 and 1.
 */
function makeLevels(signed: boolean): readonly number[] {
  const levels = [0, 1];
  for (let exponent = 0; exponent < 7; exponent++) {
    const cells = signed ? 2 ** exponent : 2 ** (exponent + 1);
    const bounds = spaced(cells + 1);
    const power = round(10 ** (exponent - 6));
    for (let cell = 0; cell < cells; cell++) {
      const middle = round(round((bounds[cell] ?? 0) + (bounds[cell + 1] ?? 0)) / 2);
      levels.push(round(power * middle), ...(signed ? [-round(power * middle)] : []));
    }
  }
  return levels.sort((a, b) => a - b);
}

export const dynamicLevels: readonly number[] = makeLevels(true);
export const unsignedDynamicLevels: readonly number[] = makeLevels(false);

/** Midpoints between neighbouring levels, in f32. */
export function midpoints(levels: readonly number[]): Float32Array {
  return Float32Array.from({ length: levels.length - 1 }, (_, index) =>
    round(round((levels[index] ?? 0) + (levels[index + 1] ?? 0)) / 2),
  );
}

const steps = 65535;

/** The level nearest to each point of a grid of 65,536 over [-1, 1]; of two equally near ones the lower. */
function makeGrid(): Uint8Array {
  const bounds = midpoints(dynamicLevels);
  let level = 0;
  return Uint8Array.from({ length: steps + 1 }, (_, index) => {
    const value = round(round((2 * index) / steps) - 1);
    while (level < 255 && value > (bounds[level] ?? Infinity)) level++;
    return level;
  });
}

let grid: Uint8Array | undefined;

/**
 * The level of a value in [-1, 1] by way of the grid's nearest point, as bitsandbytes' CPU code finds it. (The level
 * nearest to the value itself, as on GPUs, is another for about one value in a thousand: beside a midpoint, or near 0.)
 */
export function dynamicCode(value: number): number {
  grid ??= makeGrid();
  return grid[Math.trunc(round(round(round(value + 1) * 0.5) * steps + 0.5))] ?? 0;
}
