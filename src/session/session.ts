import { invariant, must, ThimbleError } from "../errors.js";
import type { WeightSource } from "../io/weight-source.js";
import type { Node } from "../ir/node.js";
import { sizeOf } from "../ir/dtype.js";
import { elements } from "../ir/shape.js";
import { leafAttributes } from "../ops/leaves.js";
import { bytesOfValue } from "../plan/plan.js";
import { sum } from "../plan/sum.js";
import { differencePrefix } from "../methods/estimator.js";
import type { ProgramOutputs } from "../methods/programs.js";
import type { HostTensors } from "../methods/types.js";
import { trainingProgram } from "../step/build.js";
import { flushProgram, furtherProgram, isOfStep, pendingStep } from "../step/deferred.js";
import { trainedNames } from "../step/estimate.js";
import { methodScalar, turnScalar } from "../step/inputs.js";
import { decodeInputs } from "../step/decode.js";
import type { DiskWeights } from "../runtime/disk-weights.js";
import type { Backend } from "./backend.js";
import { loadTensors } from "./load.js";
import { pendingError } from "./pending.js";
import type { SessionPlan } from "./plan.js";
import { splitBatch } from "./split.js";
import { sameBlocks, startStates, TurnPlans, turnsAt, turnSteps } from "./turns.js";
import { chooseBatches } from "./choice.js";
import { drawnBatches } from "./draw.js";
import type { ProgramHost } from "./events.js";
import { runEvents, runProgram } from "./events.js";
import type {
  Evaluated,
  PersistentTensor,
  Session,
  SessionBatch,
  SessionOptions,
  StepOptions,
  StepResult,
} from "./types.js";

/** What only some sessions need. */
interface SessionParts {
  /** Where the tensors are that lie on disk. */
  readonly disk?: DiskWeights | undefined;
  /** Plans the session anew, where blocks take turns. */
  readonly planAgain?: (options: SessionOptions, before: SessionPlan) => SessionPlan;
}

/** A planned session in memory, on some backend. Create it with `openSession` (src/session/open.ts). */
export class RunningSession implements Session {
  readonly report;
  readonly target;
  readonly threads;
  readonly tensors: readonly PersistentTensor[];
  readonly trainableParameters: number;
  compileSeconds = 0;
  private readonly disk: DiskWeights | undefined;
  private readonly turnPlans: TurnPlans | undefined;

  constructor(
    private plan: SessionPlan,
    private readonly backend: Backend,
    { disk, planAgain }: SessionParts = {},
  ) {
    this.disk = disk;
    this.turnPlans = planAgain === undefined ? undefined : new TurnPlans(plan, planAgain);
    const { options, report, training, leaves } = plan;
    this.report = report;
    this.target = options.target;
    this.threads = options.threads;
    this.trainableParameters = sum(training?.trainables ?? [], ({ node }) => elements(node.shape));
    // With blocks that take turns, more tensors change than train in any one step.
    const trained = new Set(training === undefined ? [] : trainedNames(options));
    this.tensors = [...leaves.values()].map((leaf) => persistentTensor(leaf, trained));
  }

  get arenaBytes(): number {
    return this.backend.allocatedBytes;
  }

  async load(weights: WeightSource, calibrated?: HostTensors): Promise<void> {
    const { disk, plan } = this;
    const bytes = (name: string): Uint8Array => this.bytes(name);
    const stored = disk === undefined ? {} : { stored: { disk, staging: (name: string) => this.#slot(name) } };
    await loadTensors(plan, weights, { bytes, ...stored, calibrated });
    if (disk === undefined) return;
    disk.flush();
    this.backend.attach?.(disk);
  }

  /** Memory that some program keeps for a tensor on disk; it is free while none runs. */
  #slot(name: string): Uint8Array {
    const all = this.plan.plans.flatMap(({ transfers }) => transfers);
    const { stored, memory } = must(
      all.find((transfer) => transfer.stored.name === name),
      `memory for ${name}`,
    );
    return this.backend.bytes(memory.offset, stored.bytes);
  }

  bytes(name: string): Uint8Array {
    const buffer = this.plan.layout.buffers.get(name);
    const leaf = this.plan.leaves.get(name);
    if (buffer === undefined || leaf === undefined) {
      throw new ThimbleError("tensor-unknown", "The session has no tensor of this name", { given: name });
    }
    if (buffer.tier === "disk") return must(this.disk, "weights on disk").read(name);
    return this.backend.bytes(buffer.offset, bytesOfValue(leaf));
  }

  async step(drawn: readonly SessionBatch[], { rate, step, data, sources }: StepOptions): Promise<StepResult> {
    const { options, training } = this.plan;
    invariant(training !== undefined, "this session has no training program");
    invariant(drawn.length === drawnBatches(options), `a step draws ${drawnBatches(options)} micro-batches`);
    const started = performance.now();
    this.#writeScalars(rate, step);
    const logged = await runEvents(this.#host, { step, ...(data === undefined ? {} : { data }) });
    const from = { step, ...(sources === undefined ? {} : { sources }) };
    const { batches, total, chosen } = await chooseBatches(this.#host, drawn, from, logged);
    const counted = await this.#takeTurns(step);
    const parts = batches.flatMap((batch) => splitBatch(batch, options.split ?? 1));
    const summing = parts.length > 1;
    if (summing) this.#clearSums();
    const variantOf = (part: number): string => options.methods?.variant(step, part) ?? "";
    const last = trainingProgram(summing ? "apply" : "train", variantOf(0));
    let loss = 0;
    for (const [part, batch] of parts.entries()) {
      const further = part > 0 && options.methods?.defer !== undefined;
      const main = summing ? trainingProgram(further ? furtherProgram : "accumulate", variantOf(part)) : last;
      this.#writeBatch(batch, total);
      await this.#run(main);
      loss += this.#output(main, "loss");
    }
    if (summing) await this.#run(last);
    counted();
    const seconds = (performance.now() - started) / 1000;
    const differences = this.#differences(last);
    const estimate = differences.length === 0 ? {} : { differences };
    const regularised = options.methods?.regularise !== undefined;
    return {
      loss,
      seconds,
      ...estimate,
      ...(Object.keys(logged).length === 0 ? {} : { logged }),
      ...(chosen === undefined || options.methods?.examples?.logged !== true ? {} : { chosen }),
      ...(regularised ? { regularisation: this.#output(last, "regularisation") } : {}),
      ...(options.clip === undefined ? {} : { gradientNorm: this.#output(last, "gradientNorm") }),
    };
  }

  async run(
    program: string,
    batch: SessionBatch,
    { step, inputs }: { readonly step: number; readonly inputs?: Readonly<Record<string, Float32Array>> },
  ): Promise<ProgramOutputs> {
    this.#writeScalars(0, step);
    return runProgram(this.#host, program, batch, inputs);
  }

  async apply(sums: ReadonlyMap<string, number>, { rate, step }: { rate: number; step: number }): Promise<void> {
    await this.settle();
    this.#writeScalars(rate, step);
    for (const [name, value] of sums) this.#write(name, Float32Array.of(value));
    await this.#run(trainingProgram("apply", this.plan.options.methods?.variant(step) ?? ""));
    await this.settle();
  }

  get current(): boolean {
    return !this.plan.leaves.has(pendingStep) || this.#i32(pendingStep)[0] === 0;
  }

  async settle(): Promise<void> {
    if (this.current) return;
    this.#writeKey();
    await this.#run(flushProgram);
  }

  peek(name: string): Uint8Array {
    return this.disk?.has(name) === true ? this.disk.read(name, this.#slot(name)) : this.bytes(name);
  }

  put(name: string, bytes: Uint8Array): void {
    if (this.disk?.has(name) === true) this.disk.write(name, bytes);
    else this.bytes(name).set(bytes);
  }

  /** What events see of the session. */
  get #host(): ProgramHost {
    return {
      plan: this.plan,
      bytes: (name) => this.bytes(name),
      write: (name, values) => {
        this.#write(name, values);
      },
      writeBatch: (batch) => {
        this.#writeBatch(batch, 1);
      },
      run: (program) => this.#run(program),
      output: (program, output) => {
        const { buffer, node } = this.#place(program, output);
        return this.backend.bytes(buffer.offset, elements(node.shape) * sizeOf(node.dtype));
      },
    };
  }

  /** What a zeroth-order estimator gives out, direction by direction. */
  #differences(program: string): number[] {
    const { outputs } = must(this.plan.plans[this.#index(program)], "program");
    const names = [...outputs.keys()].filter((name) => name.startsWith(differencePrefix));
    return names.map((name) => this.#output(program, name));
  }

  async evaluate(batch: SessionBatch): Promise<Evaluated> {
    let lossSum = 0;
    const logits: number[] = [];
    const { definition, split = 1 } = this.plan.options;
    for (const part of splitBatch(batch, split)) {
      this.#writeBatch(part, 1);
      await this.#run("evaluate");
      lossSum += this.#output("evaluate", "loss");
      if (definition.task !== undefined) logits.push(...this.#outputs("evaluate", "logits"));
    }
    const told = definition.task === undefined ? {} : { logits: Float32Array.from(logits) };
    return { lossSum, weightSum: sum(batch.weights, (weight) => weight), ...told };
  }

  async decode(ids: Int32Array, position: number): Promise<Float32Array> {
    const decode = this.plan.options.decode;
    invariant(decode !== undefined, "this session has no decoding program");
    if (ids.length === 0 || position + ids.length > decode.capacity) {
      throw new ThimbleError("decode-capacity", "The text does not fit into the cache", {
        given: `${ids.length} tokens at position ${position}`,
        expected: `at least one token, and at most ${decode.capacity} positions`,
        fix: "Ask for fewer tokens, or for a longer context.",
      });
    }
    // What methods put in front goes into the cache first, under ids that stand for nothing.
    const prefix = this.plan.options.methods?.prefix ?? 0;
    const fed = position === 0 ? Int32Array.of(...new Array<number>(prefix).fill(0), ...ids) : ids;
    const start = position === 0 ? 0 : position + prefix;
    let at = 0;
    let logits = new Float32Array(0);
    while (at < fed.length) {
      const count = fed.length - at >= decode.chunk ? decode.chunk : 1;
      logits = await this.#decodeSome(fed.subarray(at, at + count), start + at);
      at += count;
    }
    return logits;
  }

  /** Seconds of each step of a program's plan in its last run; the session must have been opened `timed`. */
  times(program: string): number[] {
    return this.backend.times(this.#index(program));
  }

  /** Seconds for which a program's last run waited for the disk; the session must have been opened `timed`. */
  waited(program: string): number {
    return this.backend.waited?.(this.#index(program)) ?? 0;
  }

  close(): void {
    this.backend.close();
    this.disk?.close();
  }

  async #decodeSome(ids: Int32Array, position: number): Promise<Float32Array<ArrayBuffer>> {
    const names = decodeInputs(ids.length);
    this.#i32(names.ids).set(ids);
    this.#i32(names.positions).set(ids.map((_, index) => position + index));
    this.#i32(names.offset)[0] = position;
    await this.#run(`decode${ids.length}`);
    return this.#outputs(`decode${ids.length}`, "logits").slice();
  }

  #index(program: string): number {
    const index = this.plan.plans.findIndex((plan) => plan.name === program);
    invariant(index >= 0, `this session has no program ${program}`);
    return index;
  }

  async #run(program: string): Promise<void> {
    this.disk?.check();
    if (!isOfStep(program) && !this.current) {
      if (this.plan.options.methods?.defer?.automatic !== true) throw pendingError(program);
      await this.settle();
    }
    await this.backend.run(this.#index(program));
  }

  #place(program: string, output: string): { buffer: { offset: number }; node: Node } {
    return must(this.plan.plans[this.#index(program)]?.outputs.get(output), `output ${output}`);
  }

  #output(program: string, output: string): number {
    const { buffer } = this.#place(program, output);
    return asF32(this.backend.bytes(buffer.offset, 4))[0] ?? NaN;
  }

  #outputs(program: string, output: string): Float32Array {
    const { buffer, node } = this.#place(program, output);
    return asF32(this.backend.bytes(buffer.offset, elements(node.shape) * sizeOf(node.dtype)));
  }

  #i32(name: string): Int32Array {
    const bytes = this.bytes(name);
    return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  }

  #write(name: string, values: Int32Array | Float32Array): void {
    if (!this.plan.leaves.has(name)) return;
    const bytes = this.bytes(name);
    invariant(
      bytes.byteLength === values.byteLength,
      `${name} has ${bytes.byteLength} bytes, was given ${values.byteLength}`,
    );
    bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }

  #writeBatch(batch: SessionBatch, total: number): void {
    this.#write("input.ids", batch.ids);
    this.#write("input.positions", batch.positions);
    this.#write("input.segments", batch.segments);
    this.#write("input.labels", batch.labels);
    this.#write("input.types", batch.types ?? new Int32Array(batch.ids.length));
    if (batch.targets !== undefined) this.#write("input.targets", batch.targets);
    this.#write(
      "input.weights",
      batch.weights.map((weight) => weight / total),
    );
  }

  /** `step` counts from 0 here and from 1 in the optimizer's formulas. */
  #writeScalars(rate: number, step: number): void {
    const { optimizer } = this.plan.options;
    this.#write("scalar.rate", Float32Array.of(rate));
    for (const [name, value] of Object.entries(optimizer.scalars(step + 1))) {
      this.#write(`scalar.${name}`, Float32Array.of(value));
    }
    for (const [name, value] of Object.entries(this.plan.options.methods?.scalars(step) ?? {})) {
      this.#write(methodScalar(name), Float32Array.of(value));
    }
    this.#writeKey();
    this.#write("scalar.step", Int32Array.of(step));
  }

  #writeKey(): void {
    const { low, high } = keyOf(this.plan.options.seed);
    this.#write("scalar.seedLow", Int32Array.of(low));
    this.#write("scalar.seedHigh", Int32Array.of(high));
  }

  /**
   * Plans the step's programs anew where other blocks train than before, and starts the states of new turns. What it
   * returns says that the step is done.
   */
  async #takeTurns(step: number): Promise<() => void> {
    const turns = turnsAt(this.plan.options, step, (name) => asF32(this.bytes(name)));
    if (turns === undefined) return () => undefined;
    // What is pending is of the blocks that had their turn until now.
    if (!sameBlocks(this.plan, turns) || turns.some(({ since }) => since === step)) await this.settle();
    if (!sameBlocks(this.plan, turns)) {
      this.plan = must(this.turnPlans, "a way to plan again").at(turns);
      if (this.plan.report.planBytes > this.arenaBytes) this.backend.grow?.(this.plan.report.planBytes);
      invariant(this.plan.report.planBytes <= this.arenaBytes, "the memory of other turns fits");
      await this.backend.prepare(this.plan.plans);
      if (this.disk !== undefined) this.backend.attach?.(this.disk);
    }
    const fresh = turns.flatMap(({ since }, turn) => (since === step ? [turn] : []));
    startStates(this.plan, fresh, (name) => this.bytes(name));
    const { numbers, counted } = turnSteps(this.plan, turns, step, (name) => this.bytes(name));
    for (const [turn, number] of numbers.entries()) {
      for (const [name, value] of Object.entries(this.plan.options.optimizer.scalars(number))) {
        this.#write(turnScalar(name, turn), Float32Array.of(value));
      }
    }
    return counted;
  }

  #clearSums(): void {
    for (const { name, role } of this.tensors) if (role === "accumulator") this.bytes(name).fill(0);
  }
}

function asF32(bytes: Uint8Array): Float32Array {
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

function persistentTensor(leaf: Node, trained: ReadonlySet<string>): PersistentTensor {
  const { name, role, shape, dtype, format } = leafAttributes(leaf);
  const changes = role === "state" || trained.has(name);
  return { name, role, shape, dtype, format, bytes: bytesOfValue(leaf), changes };
}

/** A seed as the two words of a Philox key. */
function keyOf(seed: number): { low: number; high: number } {
  return { low: seed >>> 0, high: Math.floor(seed / 2 ** 32) >>> 0 };
}
