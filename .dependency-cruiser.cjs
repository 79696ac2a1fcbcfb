const core = "^src/(ir|ops|autodiff|passes|plan|models|methods|optim|step|storage|targets)/";

module.exports = {
  forbidden: [
    { name: "no-circular", severity: "error", from: {}, to: { circular: true, dependencyTypesNot: ["type-only"] } },
    {
      name: "core-is-pure",
      comment: "The compiler core runs anywhere: it may import neither Node nor code that does.",
      severity: "error",
      from: { path: core, pathNot: "\\.test\\.ts$" },
      to: { dependencyTypes: ["core"] },
    },
    {
      name: "core-looks-inward",
      severity: "error",
      from: { path: core, pathNot: "\\.test\\.ts$" },
      to: { path: "^src/(runtime|train|cli|io|data|testing)/", dependencyTypesNot: ["type-only"] },
    },
    {
      name: "no-tests-in-product",
      severity: "error",
      from: { pathNot: "(\\.test\\.ts$|^src/testing/)" },
      to: { path: "(\\.test\\.ts$|^src/testing/)" },
    },
  ],
  options: { tsPreCompilationDeps: true, tsConfig: { fileName: "tsconfig.json" }, doNotFollow: { path: "node_modules" } },
};
