import { must } from "../errors.js";
import type { PlannedTransfer, ProgramPlan } from "../plan/plan.js";
import type { DiskWeights } from "../runtime/disk-weights.js";
import { executePlan } from "../targets/interpret/execute.js";
import type { Backend, BackendOptions } from "./backend.js";

/** Programs run by the meaning of their kernels, in a plain ArrayBuffer: slow, right, and everywhere. */
export class InterpretBackend implements Backend {
  #arena: ArrayBuffer | undefined;
  #plans: readonly ProgramPlan[] = [];
  #disk: DiskWeights | undefined;

  constructor(private readonly options: BackendOptions) {}

  allocate(bytes: number): void {
    this.#arena = new ArrayBuffer(bytes);
  }

  grow(bytes: number): void {
    const before = new Uint8Array(must(this.#arena, "arena"));
    if (bytes <= before.byteLength) return;
    this.#arena = new ArrayBuffer(bytes);
    new Uint8Array(this.#arena).set(before);
  }

  get allocatedBytes(): number {
    return this.#arena?.byteLength ?? 0;
  }

  bytes(offset: number, length: number): Uint8Array {
    return new Uint8Array(must(this.#arena, "arena"), offset, length);
  }

  prepare(plans: readonly ProgramPlan[]): Promise<void> {
    this.#plans = plans;
    return Promise.resolve();
  }

  attach(disk: DiskWeights): void {
    this.#disk = disk;
  }

  run(index: number): Promise<boolean> {
    const transfer = ({ direction, stored }: PlannedTransfer, memory: Uint8Array): void => {
      const disk = must(this.#disk, "weights on disk");
      if (direction === "read") disk.read(stored.name, memory);
      else disk.write(stored.name, memory);
    };
    const { poison } = this.options;
    executePlan(must(this.#plans[index], "program"), (offset, length) => this.bytes(offset, length), {
      poison,
      transfer,
    });
    return Promise.resolve(true);
  }

  times(): number[] {
    return [];
  }

  waited(): number {
    return 0;
  }

  close(): void {
    this.#arena = undefined;
  }
}
