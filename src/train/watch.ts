/** Steps over which losses are averaged before they are compared. */
const window = 25;
/** Shares of the first average by which a loss counts as flat, or as rising. */
const [flat, rising] = [0.001, 0.5];

export interface Warning {
  readonly code: "loss-flat" | "loss-rising" | "rate-odd" | "rate-zero";
  readonly message: string;
}

/** A warning about a learning rate far from what suits the method, if it is. */
export function oddRate(rate: number, suggested: number): Warning | undefined {
  if (rate === 0) return { code: "rate-zero", message: "The learning rate is 0: nothing will change." };
  const ratio = rate / suggested;
  if (ratio <= 100 && ratio >= 0.01) return undefined;
  const word = ratio > 1 ? "above" : "below";
  return {
    code: "rate-odd",
    message: `The learning rate ${rate} is far ${word} ${suggested}, which suits the method.`,
  };
}

/** Watches losses step by step; each warning comes once. */
export class LossWatch {
  readonly #losses: number[] = [];
  readonly #said = new Set<string>();

  /** Takes the loss of the next step. Looks at steps 50, 100, 200, 400, ...: later ones need more patience. */
  add(loss: number): Warning | undefined {
    this.#losses.push(loss);
    const count = this.#losses.length;
    const looks = count >= 2 * window && Number.isInteger(Math.log2(count / (2 * window)));
    if (!looks) return undefined;
    const first = average(this.#losses.slice(0, window));
    const last = average(this.#losses.slice(-window));
    const range = `from ${first.toFixed(4)} in the first ${window} steps to ${last.toFixed(4)} in the last ${window}`;
    if (last > first * (1 + rising)) {
      return this.#once({ code: "loss-rising", message: `The loss rose ${range}: the learning rate may be too high.` });
    }
    if (last > first * (1 - flat)) {
      return this.#once({ code: "loss-flat", message: `The loss did not fall (${range}): check --lr and the data.` });
    }
    return undefined;
  }

  #once(warning: Warning): Warning | undefined {
    if (this.#said.has(warning.code)) return undefined;
    this.#said.add(warning.code);
    return warning;
  }
}

function average(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
