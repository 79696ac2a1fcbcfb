import type { ExampleChoice } from "./examples.js";
import type { EventContext, MethodEvent, MethodProgram, MethodState } from "./programs.js";
import type { ResolvedMethod, Turns } from "./types.js";

/** What methods do beside the steps, of all of them together, named as sessions name it. */
export interface HostSide {
  readonly states: readonly MethodState[];
  readonly programs: readonly MethodProgram[];
  readonly events: readonly MethodEvent[];
  readonly turns?: Turns;
  readonly examples?: ExampleChoice;
}

/** Methods cannot meet in a name: states, programs, inputs and logged numbers carry the method's id before their own. */
const named = (id: string, name: string): string => `${id}.${name}`;

/** The slots `states`, `programs`, `events`, `turns` and `examples` of several methods. */
export function hostSide(methods: readonly ResolvedMethod[]): HostSide {
  const turns = methods.flatMap(({ id, slots }) => (slots.turns === undefined ? [] : [namedTurns(id, slots.turns)]))[0];
  const examples = methods.flatMap(({ id, slots }) =>
    slots.examples === undefined ? [] : [namedChoice(id, slots.examples)],
  )[0];
  return {
    states: methods.flatMap(({ id, slots }) =>
      (slots.states ?? []).map((state) => ({ ...state, name: named(id, state.name) })),
    ),
    programs: methods.flatMap(({ id, slots }) => (slots.programs ?? []).map((program) => namedProgram(id, program))),
    events: methods.flatMap(({ id, slots }) => (slots.events ?? []).map((event) => namedEvent(id, event))),
    ...(turns === undefined ? {} : { turns }),
    ...(examples === undefined ? {} : { examples }),
  };
}

function namedTurns(id: string, turns: Turns): Turns {
  return { ...turns, at: (step, seed, state) => turns.at(step, seed, (name) => state(named(id, name))) };
}

function namedProgram(id: string, { name, build }: MethodProgram): MethodProgram {
  return {
    name: named(id, name),
    build: (context) =>
      build({
        ...context,
        input: (own, shape, dtype) => context.input(named(id, own), shape, dtype),
        state: (own) => context.state(named(id, own)),
      }),
  };
}

function namedEvent(id: string, event: MethodEvent): MethodEvent {
  return {
    due: (step) => event.due(step),
    run: (context) => event.run({ ...context, ...namedContext(id, context) }),
  };
}

function namedChoice(id: string, choice: ExampleChoice): ExampleChoice {
  return {
    ...choice,
    runs: (rows) => renamed(id, choice.runs(rows)),
    choose: (context) => choice.choose({ ...context, ...namedContext(id, context) }),
  };
}

function namedContext(
  id: string,
  context: Omit<EventContext, "batch">,
): Pick<EventContext, "run" | "state" | "uniform" | "log"> {
  return {
    run: (program, batch, inputs = {}) => context.run(named(id, program), batch, renamed(id, inputs)),
    state: (name) => context.state(named(id, name)),
    uniform: (name, count) => context.uniform(named(id, name), count),
    log: (name, value) => {
      context.log(named(id, name), value);
    },
  };
}

function renamed<Value>(id: string, values: Readonly<Record<string, Value>>): Record<string, Value> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [named(id, name), value]));
}
