/** Packs tensors into the 4-bit formats with bitsandbytes' rule (quantize_4bit on the CPU), bit for bit. */
import { invariant, ThimbleError } from "../errors.js";
import { dynamicCode } from "./dynamic-map.js";
import type { StreamEncoder } from "./format.js";
import type { FourBitOptions } from "./four-bit-levels.js";
import { FourBitCoder, nestedBlock } from "./four-bit-levels.js";
import { torchSum } from "./torch-sum.js";

const round = Math.fround;
const smallest = round(1e-38);

/** Holds one block of values and an f32 a block, beside the packed tensor. */
export class FourBitEncoder implements StreamEncoder {
  readonly #scales: Float32Array;
  readonly #block: Float32Array;
  readonly #coder: FourBitCoder;
  #filled = 0;
  #done = 0;

  /** `planes` are those of the packed tensor, cleared. */
  constructor(
    private readonly options: FourBitOptions,
    private readonly planes: readonly Uint8Array[],
    private readonly count: number,
    private readonly name: string,
  ) {
    this.#scales = new Float32Array(Math.ceil(count / options.blocksize));
    this.#block = new Float32Array(options.blocksize);
    this.#coder = new FourBitCoder(options.type);
  }

  write(values: Float32Array): void {
    invariant(this.#done + this.#filled + values.length <= this.count, `${this.name} has ${this.count} values`);
    for (let from = 0; from < values.length;) {
      const taken = Math.min(values.length - from, this.#block.length - this.#filled);
      this.#block.set(values.subarray(from, from + taken), this.#filled);
      this.#filled += taken;
      from += taken;
      if (this.#filled === this.#block.length) this.#packBlock();
    }
  }

  finish(): void {
    if (this.#filled > 0) this.#packBlock();
    invariant(this.#done === this.count, `${this.name} was given ${this.#done} of ${this.count} values`);
    if (this.options.double) this.#packScales();
    else writeFloats(this.planes[1], this.#scales);
  }

  /** Divides the last, short block by its scale where whole ones are multiplied by its reciprocal: so bitsandbytes. */
  #packBlock(): void {
    const values = this.#block.subarray(0, this.#filled);
    const whole = values.length === this.#block.length;
    const largest = this.#largest(values);
    const divisor = Math.max(largest, smallest);
    this.#scales[this.#done / this.options.blocksize] = whole ? largest : divisor;
    const inverse = round(1 / divisor);
    const codes = this.planes[0] ?? new Uint8Array(0);
    const coder = this.#coder;
    const start = this.#done / 2;
    for (let index = 0; index < values.length; index += 2) {
      const [first, second] = [values[index] ?? 0, values[index + 1] ?? 0];
      const high = coder.code(round(whole ? first * inverse : first / divisor));
      const low = coder.code(round(whole ? second * inverse : second / divisor));
      codes[start + index / 2] = (high << 4) | low;
    }
    this.#done += values.length;
    this.#filled = 0;
  }

  #largest(values: Float32Array): number {
    let largest = 0;
    for (let index = 0; index < values.length; index++) {
      const magnitude = Math.abs(values[index] ?? 0);
      if (!(magnitude < Infinity)) this.#refuse(values[index] ?? 0, this.#done + index);
      if (magnitude > largest) largest = magnitude;
    }
    return largest;
  }

  #refuse(value: number, place: number): never {
    throw new ThimbleError("storage-range", `A weight to be packed into 4 bits is not a finite number`, {
      where: this.name,
      given: `${String(value)} at element ${place}`,
      fix: "The checkpoint is damaged, or its training diverged: use another copy of it.",
    });
  }

  /** The scales less their mean, in blocks of 256, by the dynamic map. */
  #packScales(): void {
    const mean = round(torchSum(this.#scales) / this.#scales.length);
    const centred = this.#scales.map((scale) => scale - mean);
    const nested = new Float32Array(Math.ceil(centred.length / nestedBlock));
    const codes = this.planes[1] ?? new Uint8Array(0);
    for (let block = 0; block < nested.length; block++) {
      const start = block * nestedBlock;
      const values = centred.subarray(start, start + nestedBlock);
      const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      nested[block] = largest;
      if (largest === 0) continue;
      const inverse = round(1 / largest);
      values.forEach((value, index) => {
        codes[start + index] = dynamicCode(Math.min(1, Math.max(-1, round(value * inverse))));
      });
    }
    writeFloats(this.planes[2], nested);
    writeFloats(this.planes[3], Float32Array.of(mean));
  }
}

function writeFloats(plane: Uint8Array | undefined, values: Float32Array): void {
  plane?.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
}
