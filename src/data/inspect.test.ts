import { writeFileSync } from "node:fs";
import { join } from "node:path";
import picocolors from "picocolors";
import { describe, expect, it } from "vitest";
import { folder, open, tokenizer, write } from "../testing/open-dataset.js";
import { inspectDataset } from "./inspect.js";
import { renderInspection } from "./inspect-render.js";

describe("inspection", () => {
  it("shows lengths, rows and which tokens are trained", async () => {
    const lines = [
      { prompt: "ab", completion: "cd" },
      { prompt: "a\u001b[31m\n", completion: "longer than before" },
    ];
    const set = await open({ train: write(lines), order: "sequential" });
    const inspection = inspectDataset(set, tokenizer, 5);
    expect(inspection.histogram.reduce((sum, bucket) => sum + bucket.records, 0)).toBe(2);
    expect(inspection.rows).toHaveLength(1);
    const [row] = inspection.rows;
    const trained = row?.tokens.filter((token) => token.weight > 0).map((token) => token.text);
    expect(trained?.join("")).toBe("longer than before<|end|>cd<|end|>");
    expect(row?.tokens.filter((token) => token.startsPiece)).toHaveLength(2);
    expect((row?.tokens.length ?? 0) + (row?.padding ?? 0)).toBe(64);
    const plain = renderInspection(inspection, picocolors.createColors(false));
    expect(plain).toContain("prompt-completion");
    expect(plain).toContain("┃a\\u{1b}[31m↵\nlonger than before<|end|>┃abcd<|end|>");
    expect(plain).not.toContain("\u001b");
    const coloured = renderInspection(inspection, picocolors.createColors(true));
    expect(coloured).toContain(picocolors.createColors(true).green("<|end|>"));
  });

  it("shows ids where there is no tokenizer", async () => {
    writeFileSync(
      join(folder, "ids.u16"),
      Uint16Array.from({ length: 130 }, (_, index) => index),
    );
    const set = await open({ train: `tokens:${join(folder, "ids.u16")}` });
    expect(set.report.notices).toContain("The last 2 tokens do not fill a row and are not used.");
    const [row] = inspectDataset(set, undefined, 1).rows;
    expect(row?.tokens.slice(0, 2)).toEqual([
      { id: 0, text: " 0", weight: 0, startsPiece: true },
      { id: 1, text: " 1", weight: 1, startsPiece: false },
    ]);
  });
});
