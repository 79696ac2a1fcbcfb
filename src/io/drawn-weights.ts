import { ThimbleError } from "../errors.js";
import { initialValues } from "../methods/initial.js";
import type { ParameterSpec } from "../models/types.js";
import { bytesOf } from "../storage/format.js";
import { storageFormat } from "../storage/registry.js";
import type { WeightSource, WeightTensor } from "./weight-source.js";

/** A checkpoint's tensors with those beside them that it lacks, such as a new head: drawn from the run's seed. */
export class DrawnWeights implements WeightSource {
  readonly #drawn: ReadonlyMap<string, ParameterSpec>;

  constructor(
    private readonly base: WeightSource,
    drawn: readonly ParameterSpec[],
    private readonly seed: number,
  ) {
    this.#drawn = new Map(drawn.map((parameter) => [parameter.name, parameter]));
  }

  tensor(name: string): WeightTensor {
    const drawn = this.#drawn.get(name);
    if (drawn === undefined) return this.base.tensor(name);
    return { shape: drawn.shape, storageFormat: "f32", bytes: bytesOf(storageFormat("f32"), drawn.shape) };
  }

  async readInto(name: string, target: Uint8Array, format: string): Promise<void> {
    const drawn = this.#drawn.get(name);
    if (drawn?.initial === undefined) {
      await this.base.readInto(name, target, format);
      return;
    }
    const { shape, initial } = drawn;
    const values = initialValues({ name, shape, initial, dtype: "f32", rateFactor: 1, decay: false }, this.seed);
    const bytes = storageFormat(format).encode?.(values);
    if (bytes?.length !== target.length) {
      throw new ThimbleError("storage-encode", `Thimble cannot pack tensors into ${format}`, {
        given: `tensor ${name}, which is new`,
        fix: "Choose a format that can be written, such as q8_0 or bf16.",
      });
    }
    target.set(bytes);
  }

  place(name: string, format: string): { readonly path: string; readonly offset: number } | undefined {
    return this.#drawn.has(name) ? undefined : this.base.place?.(name, format);
  }

  close(): Promise<void> {
    return this.base.close();
  }
}
