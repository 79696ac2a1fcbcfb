import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll } from "vitest";
import { writeTinyModel, writeTokens } from "../../train/testing/tiny-folder.js";

const text = "It was the best of times, it was the worst of times, it was the age of wisdom. ";

export interface Workspace {
  /** A path in the folder. */
  readonly place: (name: string) => string;
  /** Flags of a tiny run; interpreted, so that nothing is compiled. */
  readonly tiny: (...more: string[]) => string[];
}

/** A folder for the tests of a file, with a tiny model (`model`), token ids (`ids.u16`), text and conversations. */
export function workspace(): Workspace {
  let folder = "";
  const place = (name: string): string => join(folder, name);
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "thimble-verbs-"));
    await writeTinyModel(place("model"));
    await writeTokens(place("ids.u16"), 4000, 420);
    await writeFile(place("text.txt"), text.repeat(40));
    const messages = [
      { role: "user", content: "Hello?" },
      { role: "assistant", content: "Good day." },
    ];
    await writeFile(place("chat.jsonl"), Array(20).fill(JSON.stringify({ messages })).join("\n"));
  });
  afterAll(async () => {
    await rm(folder, { recursive: true, force: true });
  });
  return {
    place,
    tiny: (...more) => {
      const size = ["--batch", "2", "--seq", "16", "--steps", "3", "--target", "interpret", "--threads", "1"];
      return ["--model", place("model"), "--data", `tokens:${place("ids.u16")}`, ...size, ...more];
    },
  };
}
