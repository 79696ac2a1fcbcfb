import { describe, expect, test } from "vitest";
import { parseSource, sourceKey } from "./source-name.js";

const code = (value: string): unknown => expect.objectContaining({ code: value });

describe("names", () => {
  test.each([
    ["/a/b.gguf", { kind: "file", path: "/a/b.gguf" }],
    ["file:x y", { kind: "file", path: "x y" }],
    ["hf:o/n", { kind: "hf", repository: "o/n", revision: "main", path: "" }],
    ["hf:o/n@v1", { kind: "hf", repository: "o/n", revision: "v1", path: "" }],
    ["hf:o/n@v1/sub/m.gguf", { kind: "hf", repository: "o/n", revision: "v1", path: "sub/m.gguf" }],
    ["hf:o/n/m.gguf", { kind: "hf", repository: "o/n", revision: "main", path: "m.gguf" }],
    ["npm:pack", { kind: "npm", name: "pack", version: "latest", path: "" }],
    ["npm:@s/pack@1.2.3/models/", { kind: "npm", name: "@s/pack", version: "1.2.3", path: "models" }],
    ["pypi:a_b==1.0/x.gguf", { kind: "pypi", name: "a_b", version: "1.0", path: "x.gguf" }],
    ["https://h/m.gguf", { kind: "url", url: "https://h/m.gguf", sha256: undefined }],
    [`https://h/m.gguf#sha256=${"aB".repeat(32)}`, { kind: "url", url: "https://h/m.gguf", sha256: "ab".repeat(32) }],
  ])("%s is understood", (text, source) => {
    expect(parseSource(text)).toEqual(source);
  });

  test.each([
    "file:",
    "hf:only",
    "hf:o/n/../x",
    "hf:-o/n",
    "npm:--flag",
    "npm:../up",
    "npm:x@1.0 --evil",
    "pypi:-r",
    "pypi:a b",
    "pypi:x;y",
    "https://",
    "https://h/m.gguf#sha256=12",
  ])("%s is refused", (text) => {
    expect(() => parseSource(text)).toThrow(code("source-name"));
  });

  test("plain http is for this machine only", () => {
    expect(() => parseSource("http://example.org/m.gguf")).toThrow(code("source-insecure"));
    expect(parseSource("http://127.0.0.1:8/m.gguf").kind).toBe("url");
  });

  test("equal things have equal keys", () => {
    const key = (text: string): string =>
      sourceKey(parseSource(text) as Exclude<ReturnType<typeof parseSource>, { kind: "file" }>);
    expect(key("pypi:LLM_x.y")).toBe(key("pypi:llm-x-y"));
    expect(key("hf:o/n")).toBe("hf:o/n@main");
    expect(key("npm:p")).toBe("npm:p@latest");
  });
});
