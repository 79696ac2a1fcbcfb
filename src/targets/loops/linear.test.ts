import { describe, expect, it } from "vitest";
import type { Linear, LoopVariable } from "./linear.js";
import { addScaled, atomIndex, constantIndex, divideIndex, linearKey, rangeOf, shifted } from "./linear.js";
import { Refinement } from "./refinement.js";

function loop(name: string, extent: number): LoopVariable {
  return { kind: "loop", name, extent, axis: name, depth: 0 };
}

const [a, b] = [loop("a", 6), loop("b", 8)];
const sum = (coefficientA: number, coefficientB: number, constant: number): Linear =>
  addScaled(addScaled(constantIndex(constant), atomIndex(a), coefficientA), atomIndex(b), coefficientB);

describe("linear indices", () => {
  it("drop terms that vanish", () => {
    expect(linearKey(addScaled(sum(2, 3, 1), atomIndex(a), -2))).toBe("3*b+1");
  });

  it("know their range, backwards too", () => {
    expect(rangeOf(sum(-2, 3, 10))).toEqual({ least: 0, most: 31 });
  });

  it("divide exactly where a coefficient allows", () => {
    const requests: string[] = [];
    const { quotient, remainder } = divideIndex(sum(8, 1, 0), 8, (variable) => requests.push(variable.name));
    expect([linearKey(quotient), linearKey(remainder), requests]).toEqual(["1*a+0", "1*b+0", []]);
    const backwards = divideIndex(sum(-8, -1, 47), 8, (variable) => requests.push(variable.name));
    expect([linearKey(backwards.quotient), linearKey(backwards.remainder), requests]).toEqual(["-1*a+5", "-1*b+7", []]);
  });

  it("ask for a split where that would make a division exact, and are right without it", () => {
    const requests: [string, number][] = [];
    const index = shifted(atomIndex(b), 0);
    const { quotient, remainder } = divideIndex(index, 4, (variable, radix) => requests.push([variable.name, radix]));
    expect(requests).toEqual([["b", 4]]);
    expect(quotient.terms[0]?.atom).toMatchObject({ kind: "quotient", by: 4, extent: 2 });
    expect(remainder.terms[0]?.atom).toMatchObject({ kind: "remainder", by: 4, extent: 4 });
  });
});

describe("what was divided", () => {
  const parts = (): { quotient: Linear; remainder: Linear } => divideIndex(sum(5, 3, 2), 7, () => undefined);

  it("is itself again where quotient and remainder are put together", () => {
    const { quotient, remainder } = parts();
    expect(linearKey(addScaled(constantIndex(1), addScaled(remainder, quotient, 7), 2))).toBe(
      linearKey(addScaled(constantIndex(1), sum(5, 3, 2), 2)),
    );
  });

  it("stays divided under any other factor", () => {
    const { quotient, remainder } = parts();
    const kinds = addScaled(remainder, quotient, 6).terms.map(({ atom }) => atom.kind);
    expect(kinds).toEqual(["quotient", "remainder"]);
  });
});

describe("refinements of axes", () => {
  it("keep the inner loop of equal parts in common", () => {
    const refinement = new Refinement();
    refinement.begin();
    const [whole] = refinement.combinations("a", [3, 8], 0).parts;
    refinement.cut(whole!.variables[1]!, 4);
    expect(refinement.changed).toBe(true);
    refinement.begin();
    const split = refinement.combinations("a", [3, 8], 0);
    refinement.cut(split.parts[0]!.variables[1]!, 1);
    refinement.begin();
    const { common, parts } = refinement.combinations("a", [3, 8], 0);
    expect(parts.map((part) => part.indices.map(linearKey))).toEqual([
      ["1*a0+0", "1*a1l+0"],
      ["1*a0+0", "1*a1l+4"],
    ]);
    expect(common).toBe(2);
  });

  it("give unequal parts loops of their own", () => {
    const refinement = new Refinement();
    refinement.cut(loop("a0", 8), 3);
    refinement.begin();
    const { common, parts } = refinement.combinations("a", [8], 0);
    expect(common).toBe(0);
    expect(parts.map((part) => linearKey(part.indices[0]!))).toEqual(["1*a0a@0+0", "1*a0b@1+3"]);
  });
});
