import { must } from "../errors.js";
import type { ProgramPlan } from "../plan/plan.js";
import { executePlan } from "../targets/interpret/execute.js";
import type { Backend, BackendOptions } from "./backend.js";

/** Programs run by the meaning of their kernels, in a plain ArrayBuffer: slow, right, and everywhere. */
export class InterpretBackend implements Backend {
  #arena: ArrayBuffer | undefined;
  #plans: readonly ProgramPlan[] = [];

  constructor(private readonly options: BackendOptions) {}

  allocate(bytes: number): void {
    this.#arena = new ArrayBuffer(bytes);
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

  run(index: number): Promise<boolean> {
    executePlan(must(this.#plans[index], "program"), (offset, length) => this.bytes(offset, length), this.options);
    return Promise.resolve(true);
  }

  times(): number[] {
    return [];
  }

  close(): void {
    this.#arena = undefined;
  }
}
