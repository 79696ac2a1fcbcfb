import type { Template } from "@huggingface/jinja";

/**
 * Jinja's `strip`, `lstrip` and `rstrip` take the characters to remove, which published chat templates use; the
 * JavaScript library removes white space whatever it is given. Calls with an argument are turned into calls of the
 * functions below, which have to be among the template's variables.
 */
export const stripFunctions = {
  thimble_strip: (text: unknown, characters: unknown) => strip(text, characters, true, true),
  thimble_lstrip: (text: unknown, characters: unknown) => strip(text, characters, true, false),
  thimble_rstrip: (text: unknown, characters: unknown) => strip(text, characters, false, true),
};

/** Redirects such calls in a parsed template. */
export function redirectStrip(template: Template): void {
  visit(template.parsed);
}

interface Call {
  type: "CallExpression";
  callee: { type: string; object: unknown; property: { type: string; value: unknown }; computed: boolean };
  args: unknown[];
}

function visit(node: unknown): void {
  if (typeof node !== "object" || node === null) return;
  for (const child of Object.values(node)) visit(child);
  if (!isMethodCall(node) || node.args.length === 0) return;
  const { object, property } = node.callee;
  const name = `thimble_${String(property.value)}`;
  if (!Object.hasOwn(stripFunctions, name)) return;
  node.args.unshift(object);
  Object.assign(node, { callee: { ...property, value: name } });
}

function isMethodCall(node: object): node is Call {
  const { type, callee } = node as Partial<Call>;
  if (type !== "CallExpression" || callee === undefined) return false;
  return callee.type === "MemberExpression" && !callee.computed && callee.property.type === "Identifier";
}

function strip(text: unknown, characters: unknown, left: boolean, right: boolean): string {
  if (typeof text !== "string") throw new Error("strip() needs a string");
  const drop = typeof characters === "string" ? new Set(characters) : undefined;
  const drops = (character: string): boolean => (drop === undefined ? character.trim() === "" : drop.has(character));
  const list = Array.from(text);
  let [start, end] = [0, list.length];
  while (left && start < end && drops(list[start] ?? "")) start++;
  while (right && end > start && drops(list[end - 1] ?? "")) end--;
  return list.slice(start, end).join("");
}
