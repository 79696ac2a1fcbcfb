export * from "../../plan/cost.js";
