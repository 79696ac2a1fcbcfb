/** How a run goes, while it goes: a bar that is redrawn on a terminal, plain lines elsewhere. */
import { basename } from "node:path";
import type { SingleBar } from "cli-progress";
import { MultiBar } from "cli-progress";
import type { Progress } from "../io/download.js";
import { residentBytes } from "../runtime/memory.js";
import { bytes, duration, whole } from "./format.js";
import type { Terminal } from "./terminal.js";

/** Milliseconds between two plain lines, where steps are many. */
const lineEvery = 5000;
const fewSteps = 20;
/** Steps by which the time that is left is judged. */
const recentSteps = 16;

/** A bar with lines above it; what is printed through it never tears the bar. */
export class Display {
  #bars: MultiBar | undefined;
  #bar: SingleBar | undefined;

  constructor(readonly terminal: Terminal) {}

  /** A line above the bar. */
  print(text: string): void {
    if (this.#bars === undefined) this.terminal.print(text);
    else this.#bars.log(`${text}\n`);
  }

  /** Shows how much of `total` is done. Only for live terminals. */
  update(done: number, total: number, text: string): void {
    this.#bars ??= this.#create();
    this.#bar ??= this.#bars.create(total, done, { text });
    this.#bar.update(done, { text });
  }

  /** Leaves the bar as it is and goes on below it; with `clear`, removes it. */
  stop(clear = false): void {
    if (this.#bars === undefined) return;
    if (clear && this.#bar !== undefined) this.#bars.remove(this.#bar);
    // Lines that wait to be written would be lost.
    this.#bars.update();
    this.#bars.stop();
    this.#bars = undefined;
    this.#bar = undefined;
  }

  #create(): MultiBar {
    const { colors, stream, width } = this.terminal;
    return new MultiBar({
      stream,
      format: `${colors.cyan("{bar}")} {text}`,
      barsize: Math.max(8, Math.min(30, width - 84)),
      barCompleteChar: "█",
      barIncompleteChar: "░",
      fps: 8,
      hideCursor: false,
      gracefulExit: false,
      linewrap: false,
      forceRedraw: true,
    });
  }
}

export interface StepFacts {
  readonly step: number;
  readonly steps: number;
  readonly loss: number;
  readonly seconds: number;
  readonly tokensPerSecond: number;
}

/** Shows the steps of a run. */
export class StepProgress {
  readonly #recent: number[] = [];
  #lastLine = -Infinity;

  constructor(private readonly display: Display) {}

  step(facts: StepFacts): void {
    const { step, steps, seconds } = facts;
    this.#recent.push(seconds);
    if (this.#recent.length > recentSteps) this.#recent.shift();
    const mean = this.#recent.reduce((sum, value) => sum + value, 0) / this.#recent.length;
    const text = describeStep(facts, mean * (steps - step));
    if (this.display.terminal.live) this.display.update(step, steps, text);
    else if (this.#isDue(step, steps)) this.display.print(text);
  }

  #isDue(step: number, steps: number): boolean {
    const now = performance.now();
    const due = steps <= fewSteps || step === steps || now - this.#lastLine >= lineEvery;
    if (due) this.#lastLine = now;
    return due;
  }
}

function describeStep({ step, steps, loss, tokensPerSecond }: StepFacts, left: number): string {
  const rest = step < steps ? `  ${duration(left)} left` : "";
  const speed = `${whole(tokensPerSecond)} tokens/s`;
  return `step ${step}/${steps}  loss ${loss.toFixed(4)}  ${speed}  ${bytes(residentBytes())} in use${rest}`;
}

/** Shows files arriving. */
export function fetchProgress(display: Display): Progress {
  let told = "";
  return (file, done, total) => {
    const name = basename(file);
    const size = total === undefined ? bytes(done) : `${bytes(done)} of ${bytes(total)}`;
    if (!display.terminal.live) {
      if (told !== name) display.terminal.status(`fetching ${name}${total === undefined ? "" : `, ${bytes(total)}`}`);
      told = name;
      return;
    }
    display.update(total === undefined ? 0 : (1000 * done) / total, 1000, `${name}  ${size}`);
    if (done === total) display.stop(true);
  };
}
