/**
 * Sum of f32 values in the order in which PyTorch's CPU code adds a contiguous tensor up on one thread, so that means
 * agree with it to the bit: 8 lanes, 4 interleaved rows of them, and a cascade of 4 levels against rounding errors.
 */
const rows = 4;
const levels = 4;

export function torchSum(values: Float32Array): number {
  const lanes = values.length < 8 ? 1 : 8;
  const width = lanes * rows;
  const columns = Math.floor(values.length / lanes);
  const sums = cascade(values, Math.floor(columns / rows), width);
  const vector = sums.subarray(0, lanes);
  for (let column = Math.floor(columns / rows) * rows; column < columns; column++) {
    for (let lane = 0; lane < lanes; lane++) addTo(vector, lane, values[column * lanes + lane] ?? 0);
  }
  for (let index = lanes; index < width; index++) addTo(vector, index % lanes, sums[index] ?? 0);
  let total = 0;
  for (let index = columns * lanes; index < values.length; index++) total = Math.fround(total + (values[index] ?? 0));
  for (const part of vector) total = Math.fround(total + part);
  return total;
}

/** Sums of `count` lines of `width` values, lane by lane. */
function cascade(values: Float32Array, count: number, width: number): Float32Array {
  const sums = new Float32Array(levels * width);
  const power = Math.max(4, Math.floor(Math.ceil(Math.log2(Math.max(1, count))) / levels));
  const step = 2 ** power;
  let line = 0;
  while (line + step <= count) {
    for (const end = line + step; line < end; line++) addLine(sums, values, line, width);
    carry(sums, line, power, width);
  }
  for (; line < count; line++) addLine(sums, values, line, width);
  for (let index = width; index < sums.length; index++) addTo(sums, index % width, sums[index] ?? 0);
  return sums.subarray(0, width);
}

function addLine(sums: Float32Array, values: Float32Array, line: number, width: number): void {
  for (let index = 0; index < width; index++) addTo(sums, index, values[line * width + index] ?? 0);
}

/** Moves full levels up. */
function carry(sums: Float32Array, line: number, power: number, width: number): void {
  for (let level = 1; level < levels; level++) {
    for (let index = 0; index < width; index++) {
      addTo(sums, level * width + index, sums[(level - 1) * width + index] ?? 0);
      sums[(level - 1) * width + index] = 0;
    }
    if (Math.floor(line / 2 ** (level * power)) % 2 ** power !== 0) return;
  }
}

function addTo(sums: Float32Array, index: number, value: number): void {
  sums[index] = (sums[index] ?? 0) + value;
}
