/**
 * A permutation of [0, count) that is a pure function of (seed, epoch): where index goes is computed, not stored, so a
 * run resumes at any place without replaying what came before.
 *
 * A Feistel network of eight rounds over the smallest even number of bits that holds count - 1; results outside the
 * range are sent through again ("cycle walking", Black and Rogaway 2002). The round function is murmur3's 32-bit
 * finalizer of the half, keyed by seed, epoch and round. Integer operations only: the order is the same everywhere.
 */
export class Permutation {
  private readonly half: number;
  private readonly mask: number;
  private readonly keys: readonly number[];

  /** `count` up to 2^52; `seed` and `epoch` are safe non-negative integers. */
  constructor(
    readonly count: number,
    seed: number,
    epoch: number,
  ) {
    this.half = 1;
    while (2 ** (2 * this.half) < count) this.half++;
    this.mask = 2 ** this.half - 1;
    const key = mix(mix(low(seed)) ^ mix(high(seed) + 0x9e3779b9) ^ mix(mix(low(epoch) ^ 0x85ebca6b) + high(epoch)));
    this.keys = Array.from({ length: 8 }, (_, round) => mix(key ^ Math.imul(round + 1, 0x9e3779b9)));
  }

  /** The element at a position of the shuffled order. */
  at(index: number): number {
    if (this.count <= 1) return 0;
    let value = index;
    do value = this.encipher(value);
    while (value >= this.count);
    return value;
  }

  private encipher(value: number): number {
    const size = this.mask + 1;
    let left = Math.floor(value / size);
    let right = value % size;
    for (const key of this.keys) {
      const next = (left ^ (mix(right ^ key) & this.mask)) >>> 0;
      left = right;
      right = next;
    }
    return left * size + right;
  }
}

function low(value: number): number {
  return value >>> 0;
}

function high(value: number): number {
  return Math.floor(value / 2 ** 32) >>> 0;
}

/** murmur3's finalizer: every input bit reaches every output bit. */
function mix(value: number): number {
  let hash = value >>> 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
