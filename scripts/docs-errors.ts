/** Every code of a `ThimbleError` in the source, with what its messages say: read from the syntax, nothing is run. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { globSync } from "tinyglobby";
import ts from "typescript";

const root = fileURLToPath(new URL("..", import.meta.url));

export interface ErrorCode {
  readonly code: string;
  /** Messages, `…` standing for what differs from case to case. */
  readonly messages: readonly string[];
  /** What the error itself says to do. */
  readonly fixes: readonly string[];
  /** What it says would have been accepted. */
  readonly expected: readonly string[];
}

interface Found {
  readonly code: string;
  readonly messages: readonly string[];
  readonly fixes: readonly string[];
  readonly expected: readonly string[];
}

type Arguments = readonly ts.Expression[];

/** All texts that an expression may have; `…` for parts that are known only at run time. */
export function textsOf(expression: ts.Expression): string[] {
  if (ts.isStringLiteralLike(expression)) return [expression.text];
  if (ts.isParenthesizedExpression(expression)) return textsOf(expression.expression);
  if (ts.isConditionalExpression(expression))
    return [...textsOf(expression.whenTrue), ...textsOf(expression.whenFalse)];
  if (ts.isBinaryExpression(expression) && expression.operatorToken.kind === ts.SyntaxKind.PlusToken) {
    return joined(textsOf(expression.left), textsOf(expression.right));
  }
  if (!ts.isTemplateExpression(expression)) return ["…"];
  return expression.templateSpans.reduce(
    (texts, span) => joined(joined(texts, textsOf(span.expression)), [span.literal.text]),
    [expression.head.text],
  );
}

function joined(left: readonly string[], right: readonly string[]): string[] {
  return left.flatMap((start) => right.map((end) => start + end));
}

function sourceFiles(): ts.SourceFile[] {
  const ignore = ["**/*.test.ts", "src/testing/**", "**/testing/**"];
  const paths = globSync("src/**/*.ts", { cwd: root, ignore, absolute: true }).sort();
  return paths.map((path) => ts.createSourceFile(path, readFileSync(path, "utf8"), ts.ScriptTarget.Latest, true));
}

function visit(node: ts.Node, each: (node: ts.Node) => void): void {
  each(node);
  node.forEachChild((child) => {
    visit(child, each);
  });
}

/** The function around a node, its name, and the position of a parameter in it. */
function parameterOf(node: ts.Node, name: string): { owner: string; index: number } | undefined {
  for (let around: ts.Node = node; !ts.isSourceFile(around); around = around.parent) {
    if (!ts.isFunctionLike(around)) continue;
    const index = around.parameters.findIndex((parameter) => namesOf(parameter.name).includes(name));
    if (index < 0) continue;
    const named = ts.isVariableDeclaration(around.parent) ? around.parent.name : around.name;
    return { owner: named?.getText() ?? "", index };
  }
  return undefined;
}

function namesOf(name: ts.BindingName): string[] {
  if (ts.isIdentifier(name)) return [name.text];
  return name.elements.flatMap((element) => (ts.isOmittedExpression(element) ? [] : namesOf(element.name)));
}

/** A text that an expression may have, with the arguments of the call that it comes from, if it comes from one. */
interface Reaching {
  readonly text: string;
  readonly call?: Arguments;
}

/** Follows texts from where they are used back through parameters to where they are written. */
class TextSearch {
  readonly #calls = new Map<string, ts.CallExpression[]>();

  constructor(files: readonly ts.SourceFile[]) {
    for (const file of files) {
      visit(file, (node) => {
        if (ts.isCallExpression(node)) this.#note(node);
      });
    }
  }

  #note(call: ts.CallExpression): void {
    const { expression } = call;
    const named = ts.isPropertyAccessExpression(expression) ? expression.name : expression;
    if (!ts.isIdentifier(named) && !ts.isPrivateIdentifier(named)) return;
    this.#calls.set(named.text, [...(this.#calls.get(named.text) ?? []), call]);
  }

  /** Calls of a function: those in its own file, if there are any. */
  #callsOf(owner: string, file: ts.SourceFile): readonly ts.CallExpression[] {
    const all = this.#calls.get(owner) ?? [];
    const own = all.filter((call) => call.getSourceFile() === file);
    return own.length > 0 ? own : all;
  }

  /** `wanted` is the property that is read of an object passed on; `seen` ends recursion. */
  reaching(expression: ts.Expression, wanted?: string, seen: ReadonlySet<string> = new Set()): Reaching[] {
    const known = textsOf(expression);
    if (!known.includes("…")) return known.map((text) => ({ text }));
    // `limits.code`, `{ code }: Limits` and `code: string` are all what callers pass.
    const access = ts.isPropertyAccessExpression(expression);
    const name = access ? expression.expression.getText() : expression.getText();
    const property = wanted ?? (access ? expression.name.text : name);
    const parameter = parameterOf(expression, name);
    if (parameter === undefined || seen.has(parameter.owner)) return [];
    const inside = new Set([...seen, parameter.owner]);
    return this.#callsOf(parameter.owner, expression.getSourceFile()).flatMap((call) => {
      const argument = call.arguments[parameter.index];
      if (argument === undefined) return [];
      return this.reaching(propertyOf(argument, property), property, inside).map(({ text }) => ({
        text,
        call: call.arguments,
      }));
    });
  }
}

/** The value of a property in an object literal; of anything else, the thing itself (which is passed on). */
function propertyOf(expression: ts.Expression, name: string): ts.Expression {
  if (!ts.isObjectLiteralExpression(expression)) return expression;
  return propertiesIn(expression, name)[0] ?? expression;
}

/** Values of all properties of that name in an error's detail, spread parts included. */
function propertiesIn(detail: ts.Node, name: string): ts.Expression[] {
  const found: ts.Expression[] = [];
  visit(detail, (node) => {
    if (ts.isPropertyAssignment(node) && node.name.getText() === name) found.push(node.initializer);
  });
  return found;
}

/** An error that is thrown again with more detail keeps the code it had. */
function isRethrown(expression: ts.Expression): boolean {
  return ts.isPropertyAccessExpression(expression) && /^(error|cause)$/.test(expression.expression.getText());
}

function errorsIn(file: ts.SourceFile, search: TextSearch): Found[] {
  const found: Found[] = [];
  visit(file, (node) => {
    if (!ts.isNewExpression(node) || node.expression.getText() !== "ThimbleError") return;
    const [code, message, detail] = node.arguments ?? [];
    if (code === undefined || message === undefined || isRethrown(code)) return;
    const codes = search.reaching(code);
    if (codes.length === 0) throw new Error(`no code is known for: ${file.fileName}: ${node.getText().slice(0, 80)}`);
    const says = (name: string): string[] =>
      detail === undefined ? [] : propertiesIn(detail, name).flatMap(textsOf).filter(isSaying);
    for (const { text, call } of codes) {
      const messages = messagesOf(message, call, search).filter(isSaying);
      found.push({ code: text, messages, fixes: says("fix"), expected: says("expected") });
    }
  });
  return found;
}

/** Whether a text has words of its own beside what is filled in. */
function isSaying(text: string): boolean {
  return /\p{L}{3}/u.test(text);
}

/** A message that is a parameter beside the code is what that call passed; any other is followed on its own. */
function messagesOf(message: ts.Expression, call: Arguments | undefined, search: TextSearch): string[] {
  if (call !== undefined && ts.isIdentifier(message)) {
    const passed = call[parameterOf(message, message.text)?.index ?? -1];
    if (passed !== undefined) return textsOf(passed);
  }
  const texts = textsOf(message);
  return texts.some(isSaying) ? texts : search.reaching(message).map(({ text }) => text);
}

/** Every code, in alphabetical order. */
export function findErrorCodes(): ErrorCode[] {
  const files = sourceFiles();
  const search = new TextSearch(files);
  const found = files.flatMap((file) => errorsIn(file, search));
  const codes = [...new Set(found.map(({ code }) => code))].sort();
  return codes.map((code) => {
    const own = found.filter((error) => error.code === code);
    const unique = (pick: (error: Found) => readonly string[]): string[] => [...new Set(own.flatMap(pick))];
    return {
      code,
      messages: unique(({ messages }) => messages),
      fixes: unique(({ fixes }) => fixes),
      expected: unique(({ expected }) => expected),
    };
  });
}
