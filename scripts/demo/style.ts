/**
 * Writes the demo's fine-tuning set: telegrams, put together from hand-written phrases with the same result every time.
 *
 *   npx tsx scripts/demo/style.ts FOLDER
 *
 * Every seventh phrase and every seventh value of a slot occur in the held-out file alone, the others in both.
 * Telegrams are separated by blank lines.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { must } from "../../src/errors.js";
import { drawUniform } from "../../src/methods/initial.js";
import { common, slots, subjects } from "./style-phrases.js";

const sizes = { train: 600, heldOut: 48 } as const;

/** Random choices of one telegram. */
class Choices {
  private next = 0;
  private readonly draws: Float64Array;

  constructor(
    name: string,
    private readonly heldOut: boolean,
  ) {
    this.draws = drawUniform(1844, name, 256);
  }

  below(count: number): number {
    return Math.floor(must(this.draws[this.next++], "a random number") * count);
  }

  of(list: readonly string[]): string {
    const allowed = this.heldOut ? list : list.filter((_, index) => index % 7 !== 6);
    return must(allowed[this.below(allowed.length)], "a choice");
  }

  /** The phrase with its slots filled. */
  phrase(list: readonly string[]): string {
    return this.of(list).replaceAll(/\{(\w+)\}/g, (_, slot: string) => this.of(must(slots[slot], `the slot ${slot}`)));
  }
}

/** One telegram: whom it is for, and four to nine different phrases. */
function telegram(name: string, heldOut: boolean): string {
  const choices = new Choices(name, heldOut);
  const subject = must(Object.values(subjects)[choices.below(Object.keys(subjects).length)], "a subject");
  const wanted = 4 + choices.below(6);
  const phrases = new Set<string>();
  while (phrases.size < wanted) phrases.add(choices.phrase(choices.below(4) === 0 ? common : subject));
  const address = choices.phrase(["To {title} {name} {place}"]);
  return [address, ...phrases].map((phrase) => `${phrase} STOP`).join(" ");
}

async function write(path: string, count: number, heldOut: boolean): Promise<void> {
  const kind = heldOut ? "held-out" : "train";
  const telegrams = Array.from({ length: count }, (_, index) => telegram(`${kind} ${index}`, heldOut));
  await writeFile(path, `${telegrams.join("\n\n")}\n`);
}

const folder = must(process.argv[2], "the folder to write to");
await write(join(folder, "style.txt"), sizes.train, false);
await write(join(folder, "style-holdout.txt"), sizes.heldOut, true);
