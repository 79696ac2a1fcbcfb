import type { SessionBatch } from "../session/types.js";

/** Measures of how well a task is done beside its loss, by name. */
export type Scores = Readonly<Record<string, number>>;

/** Adds up what a model told of records, and scores it: one number a row is a regression's, several are of classes. */
export class Scorer {
  /** Counts by class that is and class that was told, [labels, labels]. */
  #counts: Float64Array | undefined;
  #labels = 0;
  readonly #told: number[] = [];
  readonly #targets: number[] = [];

  /** Rows without weight do not count. */
  add({ labels, targets, weights }: SessionBatch, logits: Float32Array): void {
    const width = logits.length / weights.length;
    this.#labels = width;
    for (let row = 0; row < weights.length; row++) {
      if (weights[row] === 0) continue;
      const numbers = logits.subarray(row * width, (row + 1) * width);
      if (width === 1) {
        this.#told.push(numbers[0] ?? NaN);
        this.#targets.push(targets?.[row] ?? NaN);
      } else this.#count(labels[row] ?? 0, largest(numbers));
    }
  }

  scores(): Scores {
    if (this.#labels === 1) return { pearson: pearson(this.#told, this.#targets) };
    return classScores(this.#counts ?? new Float64Array(this.#labels ** 2), this.#labels);
  }

  #count(is: number, told: number): void {
    const counts = (this.#counts ??= new Float64Array(this.#labels ** 2));
    const place = is * this.#labels + told;
    counts[place] = (counts[place] ?? 0) + 1;
  }
}

function largest(numbers: Float32Array): number {
  return numbers.reduce((best, value, index) => (value > (numbers[best] ?? NaN) ? index : best), 0);
}

/**
 * Share told right; F1 of the second of two classes, or the mean of that of all; Matthews' correlation (for several
 * classes: Gorodkin 2004). 0 where a denominator is 0, as in scikit-learn.
 */
function classScores(counts: Float64Array, labels: number): Scores {
  const at = (is: number, told: number): number => counts[is * labels + told] ?? 0;
  const classes = Array.from({ length: labels }, (_, index) => index);
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  const actual = classes.map((index) => sum(classes.map((other) => at(index, other))));
  const told = classes.map((index) => sum(classes.map((other) => at(other, index))));
  const right = sum(classes.map((index) => at(index, index)));
  const all = sum(actual);
  const f1 = classes.map((index) => ratio(2 * at(index, index), (actual[index] ?? 0) + (told[index] ?? 0)));
  const products = sum(classes.map((index) => (actual[index] ?? 0) * (told[index] ?? 0)));
  const squares = (values: readonly number[]): number => all ** 2 - sum(values.map((value) => value ** 2));
  return {
    accuracy: ratio(right, all),
    f1: labels === 2 ? (f1[1] ?? 0) : ratio(sum(f1), labels),
    matthews: ratio(right * all - products, Math.sqrt(squares(told) * squares(actual))),
  };
}

/** Pearson's correlation; 0 where either side is constant. */
function pearson(one: readonly number[], other: readonly number[]): number {
  const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [first, second] = [mean(one), mean(other)];
  let [both, left, right] = [0, 0, 0];
  one.forEach((value, index) => {
    const [a, b] = [value - first, (other[index] ?? NaN) - second];
    both += a * b;
    left += a * a;
    right += b * b;
  });
  return ratio(both, Math.sqrt(left * right));
}

function ratio(value: number, by: number): number {
  return by === 0 ? 0 : value / by;
}
